// Amounts are integers in minor units all the way to the screen: digits are placed, never divided.

/** @type {Record<string, number>} decimal places of one minor unit, where known */
export const scales = { USD: 2, BTC: 11, "L-BTC": 8, USDT: 8 };

/**
 * Learn scales that the server knows.
 * @param {{assets: {asset: string, scale: number}[]}[]} rails
 */
export function learnScales(rails) {
  for (const rail of rails) for (const { asset, scale } of rail.assets) scales[asset] = scale;
}

/**
 * The plain decimal, at least `least` places, no exponent: 1999 at scale 2 is "19.99".
 * @param {number | bigint | string} minor
 * @param {number} scale
 * @param {number} [least]
 */
export function decimal(minor, scale, least = scale) {
  const value = BigInt(minor);
  const sign = value < 0n ? "−" : "";
  const digits = (value < 0n ? -value : value).toString().padStart(scale + 1, "0");
  const whole = digits.slice(0, digits.length - scale);
  let part = digits.slice(digits.length - scale);
  while (part.length > least && part.endsWith("0")) part = part.slice(0, -1);
  return sign + whole + (part && `.${part}`);
}

/** @param {string} plain */
const grouped = (plain) => plain.replace(/^(−?\d+)/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, ","));

/**
 * What a payer reads: "$5.00", "5,120 sats", "5.00 USDT". Nobody knows the decimals of a foreign asset: no figure is better.
 * @param {{amount_minor: number, asset: string}} money
 */
export function money({ amount_minor, asset }) {
  const scale = scales[asset];
  if (scale === undefined) return "another asset";
  if (asset === "USD") return `$${grouped(decimal(amount_minor, 2))}`;
  if (asset === "BTC") return `${grouped(decimal(amount_minor, 3, 0))} sats`;
  return `${grouped(decimal(amount_minor, scale, asset === "L-BTC" ? scale : Math.min(scale, 2)))} ${asset}`;
}

/**
 * What a wallet reads: the bare decimal of whole units.
 * @param {{amount_minor: number | bigint, asset: string}} money
 */
export const walletAmount = ({ amount_minor, asset }) => decimal(amount_minor, scales[asset] ?? 0, 0);

/**
 * "$0.01" of an amount at the rate that was promised for it; null in dollars, or without a rate to them.
 * @param {import("../../api.d.ts").TopupOut} topup
 */
export function inDollars({ amount_due, quote }) {
  const { numerator, denominator, from, to } = quote.rate;
  if (to !== "USD" || from !== amount_due.asset || from === "USD") return null;
  const [above, below] = [BigInt(amount_due.amount_minor) * BigInt(numerator), BigInt(denominator)];
  const cents = (2n * above + below) / (2n * below);
  return cents > 0n ? `$${grouped(decimal(cents, 2))}` : "less than $0.01";
}

const counts = new Intl.NumberFormat("en");
/** @param {number} count */
export const number = (count) => counts.format(count);

/**
 * "1 credit", "2 credits".
 * @param {number} count
 * @param {string} one
 */
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${Math.abs(count) === 1 ? one : many}`;

const days = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const times = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
/** @param {number} milliseconds */
export const timeOfDay = (milliseconds) => times.format(milliseconds);
/** @param {string} iso */
export const day = (iso) => days.format(new Date(iso));
/** @param {string} iso */
export const moment = (iso) => moments.format(new Date(iso));

/**
 * "2:05" of the seconds that are left.
 * @param {number} seconds
 */
export const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
