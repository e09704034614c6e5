// What the API answers, made from its description by `python -m tests.gateway.typescript`. Not edited by hand.

/** An account as of the newest event. */
export interface AccountOut {
  id: string;
  plan: string;
  plan_label: string;
  priority: boolean;
  paid: boolean;
  credits: BalanceOut;
  free_today: FreeTodayOut;
  usage: UsageOut;
  subscription: SubscriptionOut | null;
  subscriptions: (SubscriptionOut)[];
  lots: (LotOut)[];
  role: string;
  person: PersonOut;
}

/** An account as of the newest event, as the stream shows it. */
export interface AccountStateOut {
  id: string;
  plan: string;
  plan_label: string;
  priority: boolean;
  paid: boolean;
  credits: BalanceOut;
  free_today: FreeTodayOut;
  usage: UsageOut;
  subscription: SubscriptionOut | null;
  subscriptions: (SubscriptionOut)[];
  lots: (LotOut)[];
}

/** The account after what was done. */
export interface AdjustedOut {
  account_id: string;
  available: number;
  debt: number;
  events: (string)[];
}

/** What an operator did to an account. */
export interface AdjustmentOut {
  account_id: string;
  at: string;
  kind: string;
  credits: number;
  actor: string;
  reason: string;
}

/** What waits for an operator, two hundred of each at most. */
export interface AttentionOut {
  suspended: (SuspendedOut)[];
  disputes: (DisputeOut)[];
  refunds: (OpenRefundOut)[];
  unmatched: (UnmatchedOut)[];
  debts: (DebtOut)[];
  adjustments: (AdjustmentOut)[];
}

/** How automatic top-up stands. */
export interface AutoTopupOut {
  available: boolean;
  state: "off" | "saving" | "on" | "charging" | "waiting" | "confirming" | "limited";
  reason: string;
  pack: string | null;
  pack_label: string | null;
  price_minor: number | null;
  threshold: number | null;
  limit_minor: number | null;
  charged_minor: number;
  card: SavedCardOut | null;
  page_url: string | null;
  next_attempt_at: string | null;
  payment_id: string | null;
  agreed_at: string | null;
  consent_text: string;
}

/** Credits, whole numbers; none is ever negative. */
export interface BalanceOut {
  posted: number;
  held: number;
  available: number;
  debt: number;
}

/** Price, discount and tax of an amount, in its minor units: price − discount + tax on top is the amount. */
export interface BreakdownOut {
  price_minor: number;
  discount_minor: number;
  tax_minor: number;
  tax_on_top_minor: number;
  net_minor: number;
}

/** What a top-up is for, at the price that it was opened with. */
export interface BuysOut {
  kind: "pack" | "pass" | "plan";
  name: string;
  label: string;
  price_usd_minor: number;
  months: number | null;
  lasts_seconds: number | null;
  granted: number;
  rest_awaited_until: string | null;
}

/** What a change of plan costs: now, and with the next period. */
export interface ChangePreviewOut {
  plan: string;
  length: "month" | "year";
  when: "now" | "period_end";
  due_now: MoneyOut;
  due_next: MoneyOut;
  next_at: string;
  credits_now: number;
  prorated_at: string;
}

/** What will be compared within seconds. */
export interface ComparingOut {
  rails: (string)[];
}

/** What it holds or has cost. */
export interface CreditsOut {
  held: number;
  captured: number;
}

/** An account that owes credits. */
export interface DebtOut {
  account_id: string;
  debt: number;
  posted: number;
}

/** One thing on which a rail's books and ours do not agree. Amounts are in minor units of the asset. */
export interface DifferenceOut {
  id: number;
  rail: string;
  subject: string;
  part: "received" | "taken_back" | "fee" | "costs" | "paid_out" | "balance";
  reason: "missing_here" | "missing_there" | "amount_differs" | "fee_differs" | "currency_differs";
  asset: string;
  ours_minor: number | null;
  theirs_minor: number | null;
  payment_id: string | null;
  opened_at: string;
  seen_at: string;
  closed_at: string | null;
}

/** Differences, newest first, and how far each rail has been compared. */
export interface DifferencesOut {
  rails: (RailComparedOut)[];
  differences: (DifferenceOut)[];
  next_before: number | null;
}

/** An open dispute. */
export interface DisputeOut {
  amount_minor: number;
  asset: string;
  payment_id: string;
  account_id: string;
  rail: string;
  money_ref: string;
  external_ref: string | null;
  evidence_due_by: string | null;
}

/** One movement of the balance. */
export interface EntryOut {
  position: number;
  account_id: string;
  at: string;
  kind: string;
  credits: number;
  posted_after: number;
  held_after: number;
  available_after: number;
  reference: ReferenceOut;
  description: string;
  image_url: string | null;
  thumbnail_url: string | null;
}

/** Between how many seconds from now the image should be there. */
export interface EtaOut {
  low: number;
  high: number;
}

/** How far a chain was read. */
export interface FollowingOut {
  height: number | null;
  behind: number;
  as_of: string | null;
  fault: string;
}

/** Today's allowance. */
export interface FreeTodayOut {
  left: number;
}

/** A funds receipt that came, or is on its way. */
export interface FundsReceiptOut {
  amount_minor: number;
  asset: string;
  state: string;
  reference: string;
  confirmations?: number | null;
  breakdown?: BreakdownOut | null;
}

/** A generation as accepted. */
export interface GenerationOut {
  id: string;
  state: string;
  price_credits: number;
  seed: number | null;
  position: number | null;
  eta_seconds: EtaOut | null;
  workers?: number | null;
  topup?: TopupOut | null;
}

/** A generation and where it stands. */
export interface GenerationStateOut {
  id: string;
  state: string;
  price_credits: number;
  seed: number | null;
  position: number | null;
  eta_seconds: EtaOut | null;
  workers?: number | null;
  topup?: TopupOut | null;
  expires_at: string | null;
  image_url: string | null;
  thumbnail_url: string | null;
  credits: CreditsOut;
  reason: string | null;
  message: string | null;
}

/** The newest images that have not ended, newest first. */
export interface GenerationsOut {
  generations: (GenerationStateOut)[];
}

/** Health, part by part. */
export interface HealthOut {
  ok: boolean;
  database: string;
  projections: ProjectionsHealthOut;
  wake_ups: string;
  commands_waiting: number;
  rails: Record<string, RailHealthOut>;
  workers: number | null;
  workers_active: number | null;
}

/** What one image alone costs at the moment by one rail in one of its assets. */
export interface ImagePriceOut {
  amount_minor: number;
  asset: string;
  rail: string;
  held: boolean;
}

/** How to pay, without knowing the rail. Each rail adds fields of its own (`bolt11`, `address` …). */
export interface InstructionsOut {
  kind: "redirect" | "invoice" | "address" | "charge";
  uri?: string | null;
  text?: string | null;
  url?: string | null;
}

/** A live sketch session. */
export interface LiveSessionOut {
  id: string;
  paused: boolean;
  paused_by: "person" | "spend_cap" | null;
  cap_credits: number | null;
  limit_credits: number;
  spent_credits: number;
  variations: number;
}

/** One event, as it was recorded. */
export interface LogEntryOut {
  position: number;
  recorded_at: string;
  event: string;
  actor: string;
  data: unknown;
}

/** Credits granted by one cause. */
export interface LotOut {
  id: string;
  source: "allowance" | "payment" | "subscription" | "pass" | "promotion" | "adjustment" | "overage" | "restored";
  granted: number;
  left: number;
  held: number;
  spent: number;
  granted_at: string;
  expires_at: string | null;
  reference: string;
  claimable: boolean;
}

/** Which letters an account gets. */
export interface MailChoiceOut {
  optional: boolean;
}

/** What is mailed to the caller. */
export interface MailOut {
  sends: boolean;
  address: string | null;
  optional: boolean;
  url: string;
}

/** Credits that moved. */
export interface MergedOut {
  credits: number;
}

/** Money in minor units of its asset. */
export interface MoneyOut {
  amount_minor: number;
  asset: string;
}

/** A round amount to offer. */
export interface OfferOut {
  credits: number;
  usd_minor: number;
}

/** A refund that has not ended. */
export interface OpenRefundOut {
  refund_id: string;
  payment_id: string;
  account_id: string;
  rail: string;
  by_hand: boolean;
  destination: string | null;
  attempts: number;
  last_problem: string | null;
}

/** Credits bought once; a pass ends soon. */
export interface PackOut {
  name: string;
  label: string;
  price_usd_minor: number;
  credits: number;
  kind?: "pack" | "pass";
  lasts_seconds?: number | null;
  prices: (PriceOut)[];
}

/** Everything about one payment. */
export interface PaymentDetailOut {
  topup: TopupOut;
  account_id: string;
  external_refs: (string)[];
  refund_to: "origin" | "invoice" | "address" | null;
  refundable: (RefundableOut)[];
  suspended: (SuspendedOut)[];
  lots: (LotOut)[];
  events: (LogEntryOut)[];
}

/** Money that is missing, and how to pay it. */
export interface PaymentDueOut {
  url: string | null;
  next_attempt_at: string | null;
}

/** A payment in a list. */
export interface PaymentRowOut {
  payment_id: string;
  account_id: string;
  rail: string;
  state: string;
  amount_due: MoneyOut;
  credits: number;
  credited: number;
  opened_at: string;
  refunds: number;
}

/** Payments, newest first. */
export interface PaymentRowsOut {
  payments: (PaymentRowOut)[];
  next_before: string | null;
}

/** Who it is, as far as we know. */
export interface PersonOut {
  kind: "visitor" | "guest" | "person";
  email: string | null;
}

/** A plan; prices in US cents without tax. */
export interface PlanOut {
  name: string;
  label: string;
  price_usd_minor: number;
  period: "day" | "month";
  credits: number;
  rank: number;
  priority?: boolean;
  overage_limit?: number;
  overage_usd_minor?: number;
  grace_seconds?: number;
  year_usd_minor?: number;
  prices: (PriceOut)[];
  year_prices: (PriceOut)[];
}

/** Plans, packs and passes. */
export interface PlansOut {
  plans: (PlanOut)[];
  packs: (PackOut)[];
  image_prices: (ImagePriceOut)[];
}

/** A page of the payment provider, for a few minutes. */
export interface PortalOut {
  url: string;
}

/** What it costs at the moment by one rail in one of its assets. */
export interface PriceOut {
  amount_minor: number;
  asset: string;
  rail: string;
}

/** Where a waiting job stands, or how far a running one is; true for the moment only. */
export interface ProgressOut {
  id: string;
  state: "queued" | "running";
  position?: number | null;
  eta_seconds?: EtaOut | null;
  workers?: number | null;
  value?: number | null;
  max?: number | null;
  preview?: string | null;
}

/** The read models. */
export interface ProjectionsHealthOut {
  position: number;
  stopped: boolean;
}

/** The price that was promised. */
export interface QuoteOut {
  rate: RateOut;
  source: string;
  expires_at: string;
  expired: boolean;
}

/** An asset that can be paid with. */
export interface RailAssetOut {
  asset: string;
  scale: number;
  minimum_minor: number;
  maximum_minor: number;
  open: boolean;
}

/** How far the books of a rail have been compared. */
export interface RailComparedOut {
  rail: string;
  read_at: string | null;
  compared_at: string | null;
  due_at: string;
  attempts: number;
  last_problem: string | null;
  open: number;
}

/** A payment rail. */
export interface RailHealthOut {
  ok: boolean;
  detail: string;
  receivable: Record<string, number> | null;
  following: FollowingOut | null;
  listening: boolean;
  caught_up: boolean;
  unmatched_hints: number;
  refused: RefusedOut | null;
}

/** A payment method. */
export interface RailOut {
  name: string;
  label: string;
  assets: (RailAssetOut)[];
  open: boolean;
  reason: string | null;
  quote_seconds: number;
  tax_on_top: boolean;
}

/** Payment methods, and round amounts to offer. */
export interface RailsOut {
  rails: (RailOut)[];
  packs: (OfferOut)[];
}

/** Minor units of `to` for one of `from`: numerator over denominator, exact. */
export interface RateOut {
  numerator: string;
  denominator: string;
  from: string;
  to: string;
}

/** The balance that was opened. */
export interface RecoveredOut {
  merged: MergedOut;
  brought?: number | null;
  token?: string | null;
}

/** A plan that a payment method charges again by itself, as of when that was last asked. */
export interface RecurringOut {
  id: string;
  rail: string;
  status: "opening" | "incomplete" | "active" | "trialing" | "past_due" | "unpaid" | "paused" | "ended" | "expired";
  plan: string;
  plan_label: string;
  length: "month" | "year";
  page_url: string | null;
  period_start: string | null;
  period_end: string | null;
  cancels: boolean;
  next_plan: string | null;
  next_length: "month" | "year" | null;
  pending_plan: string | null;
  pending_length: "month" | "year" | null;
  payment_due: PaymentDueOut | null;
  opened_at: string;
}

/** What a movement was for. */
export interface ReferenceOut {
  type: string;
  id: string;
}

/** Unspent credits of a top-up, and what is sent back for them. */
export interface RefundOfferOut {
  amount_minor: number;
  asset: string;
  lot_id: string;
  credits: number;
  until: string;
}

/** What of a top-up can be refunded on request now. */
export interface RefundOffersOut {
  days: number;
  to: "origin" | "invoice" | "address" | null;
  offers: (RefundOfferOut)[];
}

/** A refund of a top-up, or of a part of it. */
export interface RefundOut {
  amount_minor: number;
  asset: string;
  id: string;
  state: "requested" | "sent" | "failed" | "returned";
  credits: number;
  requested_at: string;
  by_hand: boolean;
}

/** Unspent credits of a payment, and what can be sent back for them. */
export interface RefundableOut {
  amount_minor: number;
  asset: string;
  lot_id: string;
  credits: number;
}

/** Notifications that were not kept since this process began. */
export interface RefusedOut {
  reason: string;
  detail: string;
  at: string;
  times: Record<string, number>;
}

/** What is charged. */
export interface SavedCardOut {
  label: string;
  expires_at: string | null;
}

/** Who the caller is, and where to sign in. */
export interface SessionOut {
  kind: "visitor" | "guest" | "person";
  email: string | null;
  sign_in: string;
  mails_links: boolean;
}

/** Whom a mailed link would sign in. */
export interface SignInLinkForOut {
  email: string;
}

/** A link is on its way. */
export interface SignInLinkOut {
  lasts_seconds: number;
}

/** A session; `merged` says what the guest brought along. */
export interface SignedInOut {
  kind: "visitor" | "guest" | "person";
  email: string | null;
  merged: MergedOut;
}

/** What is left after signing out everywhere. */
export interface SignedOutEverywhereOut {
  kind: string;
  token?: string | null;
}

/** What is left after signing out. */
export interface SignedOutOut {
  kind: string;
}

/** A page of the statement, newest first. */
export interface StatementOut {
  entries: (EntryOut)[];
  next_cursor: string | null;
}

/** How many notifications were new. */
export interface StoredOut {
  stored: number;
}

/** A paid plan and its present period. */
export interface SubscriptionOut {
  subscription_id: string;
  plan: string;
  period_start: string;
  period_end: string;
  next_plan: string;
  cancels: boolean;
  lasts_until: string;
}

/** The newest subscriptions of an account, newest first. */
export interface SubscriptionsOut {
  subscriptions: (RecurringOut)[];
  rails: (string)[];
}

/** Money that waits for an operator, or for a rate. */
export interface SuspendedOut {
  amount_minor: number;
  asset: string;
  payment_id: string;
  account_id: string;
  rail: string;
  money_ref: string;
  status: "mismatched" | "too_small" | "unpriced";
  first_seen_at: string;
  going_back: boolean;
}

/** An L402 token that counts no more. */
export interface TokenEndedOut {
  ended: boolean;
}

/** What a link to top up an account is for. */
export interface TopupLinkOut {
  account: string;
  needed_credits: number;
  missing_credits: number;
  expires_at: string;
}

/** A top-up and where it stands. */
export interface TopupOut {
  id: string;
  rail: string;
  state: "opening" | "waiting" | "seen" | "underpaid" | "paid" | "expired" | "declined" | "suspense" | "unpriced" | "reversed" | "disputed";
  credits: number;
  amount_due: MoneyOut;
  amount_missing: MoneyOut;
  received: (FundsReceiptOut)[];
  credited: number;
  quote: QuoteOut;
  instructions: InstructionsOut | null;
  attempt_of: string | null;
  created_at: string;
  generation_id?: string | null;
  purchase?: BuysOut | null;
  decline_code?: string | null;
  recovery_code?: string | null;
  refunds?: (RefundOut)[];
}

/** The newest fifty top-ups. */
export interface TopupsOut {
  topups: (TopupOut)[];
}

/** A notification about a payment of ours that could not be dealt with. */
export interface UnmatchedOut {
  id: number;
  rail: string;
  payment_id: string | null;
  received_at: string;
  last_problem: string | null;
}

/** Use of the present period's allowance. */
export interface UsageOut {
  period?: string;
  granted?: number;
  used?: number;
  warned_percent?: number;
  overage?: number;
  ends_at?: string | null;
  overage_limit?: number;
  overage_usd_minor?: number;
  overage_owed?: number;
}

/** A new visitor and its token. */
export interface VisitorOut {
  account_id: string;
  token: string;
}

type Found<K extends string> =
  K extends `POST /v1/operator/payments/${string}/refunds/${string}` ? TopupOut :
  K extends `POST /v1/operator/payments/${string}/suspense` ? TopupOut :
  K extends `POST /v1/operator/accounts/${string}/forgive` ? AdjustedOut :
  K extends `POST /v1/operator/accounts/${string}/adjust` ? AdjustedOut :
  K extends `POST /v1/operator/payments/${string}/refund` ? TopupOut :
  K extends `PATCH /v1/generations/sessions/${string}` ? LiveSessionOut :
  K extends `POST /v1/subscriptions/${string}/preview` ? ChangePreviewOut :
  K extends `POST /v1/subscriptions/${string}/cancel` ? RecurringOut :
  K extends `POST /v1/subscriptions/${string}/change` ? RecurringOut :
  K extends `POST /v1/subscriptions/${string}/portal` ? PortalOut :
  K extends `POST /v1/subscriptions/${string}/resume` ? RecurringOut :
  K extends `GET /v1/generations/sessions/${string}` ? LiveSessionOut :
  K extends `GET /v1/operator/payments/${string}` ? PaymentDetailOut :
  K extends `GET /v1/topup-link/topups/${string}` ? TopupOut :
  K extends `DELETE /v1/generations/${string}` ? GenerationStateOut :
  K extends `POST /v1/topups/${string}/cancel` ? TopupOut :
  K extends `POST /v1/topups/${string}/refund` ? TopupOut :
  K extends `GET /v1/subscriptions/${string}` ? RecurringOut :
  K extends `GET /v1/topups/${string}/refund` ? RefundOffersOut :
  K extends `GET /v1/generations/${string}` ? GenerationStateOut :
  K extends `POST /v1/operator/differences` ? ComparingOut :
  K extends `GET /v1/operator/differences` ? DifferencesOut :
  K extends `GET /v1/operator/attention` ? AttentionOut :
  K extends `POST /v1/topup-link/topups` ? TopupOut :
  K extends `GET /v1/operator/payments` ? PaymentRowsOut :
  K extends `GET /v1/topups/${string}` ? TopupOut :
  K extends `POST /v1/auto-topup/card` ? AutoTopupOut :
  K extends `POST /v1/hooks/${string}` ? StoredOut :
  K extends `POST /v1/session/recover` ? RecoveredOut :
  K extends `POST /v1/auto-topup/off` ? AutoTopupOut :
  K extends `POST /v1/mail/${string}` ? MailChoiceOut :
  K extends `GET /v1/mail/${string}` ? MailChoiceOut :
  K extends `POST /v1/session/links` ? SignInLinkOut :
  K extends `POST /v1/subscriptions` ? RecurringOut :
  K extends `PUT /v1/mail/${string}` ? MailChoiceOut :
  K extends `GET /v1/session/links` ? SignInLinkForOut :
  K extends `GET /v1/subscriptions` ? SubscriptionsOut :
  K extends `POST /v1/generations` ? GenerationOut :
  K extends `DELETE /v1/sessions` ? SignedOutEverywhereOut :
  K extends `GET /v1/generations` ? GenerationsOut :
  K extends `POST /v1/auto-topup` ? AutoTopupOut :
  K extends `DELETE /v1/session` ? SignedOutOut :
  K extends `GET /v1/auto-topup` ? AutoTopupOut :
  K extends `GET /v1/topup-link` ? TopupLinkOut :
  K extends `GET /v1/statement` ? StatementOut :
  K extends `POST /v1/visitors` ? VisitorOut :
  K extends `POST /v1/session` ? SignedInOut :
  K extends `DELETE /v1/l402` ? TokenEndedOut :
  K extends `GET /v1/account` ? AccountOut :
  K extends `GET /v1/session` ? SessionOut :
  K extends `POST /v1/topups` ? TopupOut :
  K extends `GET /v1/topups` ? TopupsOut :
  K extends `GET /v1/plans` ? PlansOut :
  K extends `GET /v1/rails` ? RailsOut :
  K extends `GET /v1/mail` ? MailOut :
  K extends `GET /health` ? HealthOut :
  never;

/** What the stream's frames carry, by their event. */
export interface Frames {
  account: AccountStateOut;
  generation: GenerationStateOut;
  progress: ProgressOut;
  topup: TopupOut;
}

/** What an operation answers. The pages' query is no part of its name; the sandbox's own pages are not described. */
export type Answer<M extends string, P extends string> =
  P extends `/sandbox/${string}` ? any
  : P extends `${infer Path}?${string}` ? Found<`${M} ${Path}`>
  : Found<`${M} ${P}`>;
