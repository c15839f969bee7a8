// Formats numbers for readers.

const locale = "en";
const number = (options) => new Intl.NumberFormat(locale, options);
const three = number({ maximumSignificantDigits: 3, minimumSignificantDigits: 3 });
const compact = number({ maximumSignificantDigits: 3 });
const whole = number({ maximumFractionDigits: 0 });
const tenths = number({ minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const none = "–";

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export const count = (value) => (known(value) ? whole.format(value) : none);

export const score = (value) => (Number.isInteger(value) ? whole.format(value) : three.format(value));

export function flops(value) {
  const units = ["", "k", "M", "G", "T"];
  let place = 0;
  let scaled = value;
  for (; scaled >= 1000 && place < units.length - 1; place += 1) scaled /= 1000;
  return `${compact.format(scaled)} ${units[place]}FLOPs`;
}

export const percent = (share) => (known(share) ? `${tenths.format(share * 100)} %` : none);

// A percentage in a cell. It has decimals only if it would be 0 without them.
export function cell(share) {
  const value = share * 100;
  return value > 0 && value < 1 ? "<1" : whole.format(value);
}

export const milliseconds = (value) => (known(value) ? `${compact.format(value)} ms` : none);

export const rate = (value) => (known(value) ? compact.format(value) : none);

export const instant = (iso) => iso.replace("T", " ").replace(/Z$/, " UTC");
