CREATE TABLE log_batches (
    batch BIGINT NOT NULL,
    first_position BIGINT NOT NULL,
    last_position BIGINT NOT NULL,
    outcomes INTEGER NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE NOT NULL,
    previous_hash BYTEA NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (batch)
);

COMMENT ON COLUMN log_batches.last_position IS 'first_position - 1 if no event';

CREATE TABLE log_outcomes (
    key TEXT NOT NULL,
    batch BIGINT NOT NULL,
    ordinal INTEGER NOT NULL,
    body_digest BYTEA NOT NULL,
    position BIGINT NOT NULL,
    refusal TEXT,
    detail BYTEA NOT NULL,
    PRIMARY KEY (key)
);

COMMENT ON COLUMN log_outcomes.key IS 'command key: ours, time-ordered';

COMMENT ON COLUMN log_outcomes.ordinal IS 'its place among the batch''s outcomes';

COMMENT ON COLUMN log_outcomes.refusal IS 'the refusal''s code, null if accepted';

COMMENT ON COLUMN log_outcomes.detail IS 'JSON: the result or the refusal''s details';

CREATE TABLE log_snapshots (
    stream TEXT NOT NULL,
    version BIGINT NOT NULL,
    shape TEXT NOT NULL,
    state BYTEA NOT NULL,
    PRIMARY KEY (stream)
);

COMMENT ON COLUMN log_snapshots.shape IS 'which code wrote it; another shape is ignored';

CREATE TABLE stored_events (
    originator_id TEXT NOT NULL,
    originator_version BIGINT NOT NULL,
    topic TEXT NOT NULL,
    state BYTEA NOT NULL,
    notification_id BIGINT NOT NULL,
    PRIMARY KEY (originator_id, originator_version)
);

CREATE UNIQUE INDEX stored_events_notification_id_idx ON stored_events (notification_id);

COMMENT ON COLUMN stored_events.originator_id IS 'the stream';

COMMENT ON COLUMN stored_events.topic IS 'the stored event name';

COMMENT ON COLUMN stored_events.state IS 'JSON: envelope and data';

COMMENT ON COLUMN stored_events.notification_id IS 'the position in the log, no gaps';

CREATE TABLE rail_cursors (
    rail TEXT NOT NULL,
    cursor TEXT NOT NULL,
    PRIMARY KEY (rail)
);

CREATE TABLE rail_hints (
    id BIGSERIAL NOT NULL,
    rail TEXT NOT NULL,
    hint_id TEXT,
    reference TEXT,
    state TEXT NOT NULL,
    tries INTEGER NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    problem TEXT,
    PRIMARY KEY (id),
    UNIQUE (rail, hint_id)
);

CREATE INDEX rail_hints_due ON rail_hints (rail, due_at) WHERE state = 'waiting';

CREATE TABLE rail_instructions (
    payment_id TEXT NOT NULL,
    instructions JSON NOT NULL,
    return_url TEXT NOT NULL,
    description TEXT NOT NULL,
    PRIMARY KEY (payment_id)
);

CREATE TABLE rail_money (
    money_ref TEXT NOT NULL,
    payment_id TEXT NOT NULL,
    PRIMARY KEY (money_ref)
);

CREATE TABLE rail_ordinals (
    rail TEXT NOT NULL,
    last BIGINT NOT NULL,
    PRIMARY KEY (rail)
);

CREATE TABLE rail_payments (
    payment_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    rail TEXT NOT NULL,
    root_id TEXT NOT NULL,
    state TEXT NOT NULL,
    unpaid BOOLEAN NOT NULL,
    unpriced BOOLEAN NOT NULL,
    watch_until TIMESTAMP WITH TIME ZONE,
    quote_expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
    payment JSON NOT NULL,
    PRIMARY KEY (payment_id)
);

CREATE INDEX rail_payments_account ON rail_payments (account_id, opened_at);

CREATE INDEX rail_payments_root ON rail_payments (root_id);

CREATE INDEX rail_payments_unpriced ON rail_payments (rail) WHERE unpriced;

CREATE INDEX rail_payments_watch ON rail_payments (rail, watch_until) WHERE watch_until IS NOT NULL;

CREATE TABLE rail_references (
    payment_id TEXT NOT NULL,
    rail TEXT NOT NULL,
    ordinal BIGINT NOT NULL,
    reference TEXT,
    PRIMARY KEY (payment_id),
    UNIQUE (rail, ordinal),
    UNIQUE (rail, reference)
);

CREATE TABLE fair_shares (
    account_id TEXT NOT NULL,
    finish BIGINT NOT NULL,
    PRIMARY KEY (account_id)
);

CREATE INDEX fair_shares_finish ON fair_shares (finish);

COMMENT ON COLUMN fair_shares.finish IS 'virtual time at which their last job ends';

CREATE TABLE job_funding (
    job_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    method TEXT NOT NULL,
    state TEXT NOT NULL,
    price_credits BIGINT NOT NULL,
    reference TEXT,
    result JSONB,
    due_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (job_id)
);

CREATE INDEX job_funding_due ON job_funding (due_at) WHERE state <> 'held';

COMMENT ON COLUMN job_funding.method IS 'what the person chose to pay with';

COMMENT ON COLUMN job_funding.state IS 'opening, waiting, held, settling or releasing';

COMMENT ON COLUMN job_funding.reference IS 'the payment, once its way to pay is open';

COMMENT ON COLUMN job_funding.result IS 'the verified image''s facts while the payment is settled';

CREATE TABLE job_inputs (
    job_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    prompt TEXT NOT NULL,
    seed BIGINT NOT NULL,
    strength INTEGER NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    sketch_key TEXT NOT NULL,
    sketch_sha256 TEXT NOT NULL,
    requested_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (job_id)
);

CREATE INDEX job_inputs_account ON job_inputs (account_id, requested_at);

COMMENT ON COLUMN job_inputs.strength IS 'per mille';

CREATE TABLE job_leftovers (
    job_id TEXT NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (job_id)
);

CREATE INDEX job_leftovers_due ON job_leftovers (due_at);

CREATE TABLE job_queue (
    job_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    session_id TEXT,
    graph TEXT NOT NULL,
    state TEXT NOT NULL,
    tag BIGINT NOT NULL,
    rank BIGINT NOT NULL,
    weight INTEGER DEFAULT '1' NOT NULL,
    held BOOLEAN DEFAULT true NOT NULL,
    free_credits INTEGER DEFAULT '0' NOT NULL,
    networks JSONB,
    requested_at TIMESTAMP WITH TIME ZONE NOT NULL,
    deadline TIMESTAMP WITH TIME ZONE NOT NULL,
    attempts INTEGER DEFAULT '0' NOT NULL,
    refused_workers JSONB NOT NULL,
    epoch INTEGER DEFAULT '0' NOT NULL,
    worker_id TEXT,
    lease_expires_at TIMESTAMP WITH TIME ZONE,
    leased_at TIMESTAMP WITH TIME ZONE,
    progress_value INTEGER DEFAULT '0' NOT NULL,
    progress_max INTEGER DEFAULT '0' NOT NULL,
    cancel_asked BOOLEAN DEFAULT false NOT NULL,
    PRIMARY KEY (job_id)
);

CREATE INDEX job_queue_account ON job_queue (account_id);

CREATE INDEX job_queue_claim ON job_queue (rank, job_id) WHERE state = 'queued';

CREATE INDEX job_queue_deadline ON job_queue (deadline);

CREATE INDEX job_queue_fair ON job_queue (tag, job_id) WHERE state = 'queued';

CREATE INDEX job_queue_lease ON job_queue (lease_expires_at) WHERE worker_id IS NOT NULL;

CREATE INDEX job_queue_session ON job_queue (session_id) WHERE session_id IS NOT NULL;

COMMENT ON COLUMN job_queue.session_id IS 'live session of a frame or variation';

COMMENT ON COLUMN job_queue.state IS 'awaiting_payment, queued, running or settling';

COMMENT ON COLUMN job_queue.tag IS 'place in the fair order of all people';

COMMENT ON COLUMN job_queue.rank IS 'the tag less the tier''s bonus';

COMMENT ON COLUMN job_queue.held IS 'a hold stands for it';

COMMENT ON COLUMN job_queue.free_credits IS 'counted in networks';

COMMENT ON COLUMN job_queue.networks IS 'ids of the network allowances that count its free credits';

COMMENT ON COLUMN job_queue.refused_workers IS 'worker ids that failed on it';

CREATE TABLE job_results (
    job_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    image_key TEXT NOT NULL,
    thumbnail_key TEXT NOT NULL,
    content_type TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    gpu_milliseconds INTEGER NOT NULL,
    wait_milliseconds BIGINT DEFAULT '0' NOT NULL,
    paint_milliseconds BIGINT DEFAULT '0' NOT NULL,
    completed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (job_id)
);

CREATE INDEX job_results_account ON job_results (account_id, completed_at);

CREATE INDEX job_results_newest ON job_results (completed_at);

CREATE TABLE job_returns (
    job_id TEXT NOT NULL,
    session_id TEXT,
    credits BIGINT NOT NULL,
    free_credits INTEGER NOT NULL,
    networks JSONB NOT NULL,
    PRIMARY KEY (job_id)
);

COMMENT ON COLUMN job_returns.session_id IS 'the live session that counts its price';

COMMENT ON COLUMN job_returns.networks IS 'ids of the network allowances that count it';

CREATE TABLE live_sessions (
    session_id TEXT NOT NULL,
    newest_seq BIGINT NOT NULL,
    delivered_seq BIGINT NOT NULL,
    delivered_job TEXT,
    waiting_job TEXT,
    requested_credits BIGINT NOT NULL,
    cap_credits BIGINT,
    paused BOOLEAN DEFAULT false NOT NULL,
    variations INTEGER DEFAULT '0' NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (session_id)
);

CREATE INDEX live_sessions_age ON live_sessions (updated_at);

CREATE INDEX live_sessions_paused ON live_sessions (session_id) WHERE paused;

COMMENT ON COLUMN live_sessions.session_id IS 'account id and client''s session id';

COMMENT ON COLUMN live_sessions.newest_seq IS 'newest frame requested';

COMMENT ON COLUMN live_sessions.delivered_seq IS 'newest frame delivered';

COMMENT ON COLUMN live_sessions.delivered_job IS 'the job of the newest frame delivered';

COMMENT ON COLUMN live_sessions.waiting_job IS 'the pending frame that a newer one replaces';

COMMENT ON COLUMN live_sessions.requested_credits IS 'spent, or held for it';

COMMENT ON COLUMN live_sessions.cap_credits IS 'the person''s own limit';

CREATE TABLE network_allowances (
    id TEXT NOT NULL,
    used INTEGER NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (id)
);

COMMENT ON COLUMN network_allowances.id IS 'UTC day and keyed digest of the address prefix';

CREATE TABLE queue_clock (
    id TEXT NOT NULL,
    virtual_time BIGINT NOT NULL,
    PRIMARY KEY (id)
);

COMMENT ON COLUMN queue_clock.virtual_time IS 'tag of the newest claimed job';

CREATE TABLE worker_registrations (
    token_digest BYTEA NOT NULL,
    worker_id TEXT NOT NULL,
    used_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (token_digest)
);

CREATE TABLE workers (
    worker_id TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    capabilities JSONB NOT NULL,
    token_digest BYTEA NOT NULL,
    token_expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    state TEXT NOT NULL,
    failures_in_a_row INTEGER DEFAULT '0' NOT NULL,
    registered_at TIMESTAMP WITH TIME ZONE NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
    jobs_done BIGINT DEFAULT '0' NOT NULL,
    gpu_milliseconds BIGINT DEFAULT '0' NOT NULL,
    PRIMARY KEY (worker_id)
);

COMMENT ON COLUMN workers.state IS 'active, draining, quarantined or gone';

CREATE TABLE account_due (
    account_id TEXT NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (account_id)
);

CREATE INDEX ix_account_due_due_at ON account_due (due_at);

COMMENT ON TABLE account_due IS 'work to do, not a read model: which accounts a sweep should visit, and when';

COMMENT ON COLUMN account_due.position IS 'of the newest event that made it due';

CREATE TABLE account_feed (
    account_id TEXT NOT NULL,
    position BIGINT NOT NULL,
    topic TEXT NOT NULL,
    stream TEXT NOT NULL,
    PRIMARY KEY (account_id, position)
);

COMMENT ON COLUMN account_feed.topic IS 'account, generation or topup';

CREATE TABLE balances (
    account_id TEXT NOT NULL,
    posted BIGINT NOT NULL,
    held BIGINT NOT NULL,
    debt BIGINT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (account_id),
    CONSTRAINT balances_are_never_negative CHECK (posted >= 0 AND held >= 0 AND debt >= 0)
);

COMMENT ON COLUMN balances.posted IS 'credits owned, in hold or not';

COMMENT ON COLUMN balances.position IS 'of the newest event counted';

CREATE TABLE projection_positions (
    projection TEXT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (projection)
);

CREATE TABLE statement_entries (
    account_id TEXT NOT NULL,
    position BIGINT NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE NOT NULL,
    kind TEXT NOT NULL,
    credits BIGINT NOT NULL,
    posted_after BIGINT NOT NULL,
    held_after BIGINT NOT NULL,
    debt_after BIGINT NOT NULL,
    reference_type TEXT NOT NULL,
    reference_id TEXT NOT NULL,
    description TEXT NOT NULL,
    PRIMARY KEY (account_id, position)
);

COMMENT ON COLUMN statement_entries.kind IS 'granted, held, captured, released and so on';

COMMENT ON COLUMN statement_entries.credits IS 'of what is owned; of what is available where only a reservation changes';

CREATE TABLE stream_owners (
    stream TEXT NOT NULL,
    account_id TEXT NOT NULL,
    PRIMARY KEY (stream)
);

COMMENT ON COLUMN stream_owners.stream IS 'a job or a payment';

CREATE TABLE api_keys (
    key_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    digest BYTEA NOT NULL,
    scopes JSONB NOT NULL,
    label TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (key_id),
    UNIQUE (digest)
);

CREATE TABLE guests (
    account_id TEXT NOT NULL,
    code_digest BYTEA,
    merged_into TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (account_id),
    UNIQUE (code_digest)
);

COMMENT ON COLUMN guests.code_digest IS 'of the recovery code';

CREATE TABLE idempotency_keys (
    principal TEXT NOT NULL,
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    body_digest BYTEA NOT NULL,
    resource_id TEXT NOT NULL,
    attempt INTEGER DEFAULT '0' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (principal, route, key)
);

COMMENT ON COLUMN idempotency_keys.key IS 'as the client chose it';

COMMENT ON COLUMN idempotency_keys.resource_id IS 'the id that this key stands for';

CREATE TABLE people (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    account_id TEXT NOT NULL,
    email TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (issuer, subject),
    UNIQUE (account_id)
);

COMMENT ON COLUMN people.email IS 'erasable';
