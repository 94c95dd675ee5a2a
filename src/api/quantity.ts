/**
 * Kubernetes quantities ("10Gi", "1500m", "2e3") as whole bytes. Fractions are rounded up, as Kubernetes does for
 * storage.
 */
const suffixes: Readonly<Record<string, readonly [base: bigint, exponent: bigint]>> = {
  Ki: [1024n, 1n],
  Mi: [1024n, 2n],
  Gi: [1024n, 3n],
  Ti: [1024n, 4n],
  Pi: [1024n, 5n],
  Ei: [1024n, 6n],
  n: [10n, -9n],
  u: [10n, -6n],
  m: [10n, -3n],
  "": [10n, 0n],
  k: [10n, 3n],
  M: [10n, 6n],
  G: [10n, 9n],
  T: [10n, 12n],
  P: [10n, 15n],
  E: [10n, 18n],
};

/** What the API server takes for a quantity that is not negative; also the pattern in the CRD. */
export const quantityPattern = "^([0-9]+([.][0-9]*)?|[.][0-9]+)(([KMGTPE]i)|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$";
const quantityExpression = new RegExp(quantityPattern);

/** Throws a RangeError that names the text where it is no quantity. */
export function quantityToBytes(quantity: string | number): bigint {
  const text = String(quantity);
  const match = quantityExpression.exec(text);
  if (!match) throw new RangeError(`"${text}" is not a quantity; write it like 10Gi or 500M`);
  const number = match[1] ?? "0";
  const suffix = match[3] ?? "";
  const [whole = "", fraction = ""] = number.split(".");
  let digits = BigInt(`${whole}${fraction}` || "0");
  let scale = -BigInt(fraction.length);
  if (/^[eE][+-]?[0-9]/.test(suffix)) scale += BigInt(suffix.slice(1));
  else {
    const [base, exponent] = suffixes[suffix] ?? [10n, 0n];
    if (base === 10n) scale += exponent;
    else digits *= base ** exponent;
  }
  if (scale >= 0n) return digits * 10n ** scale;
  const divisor = 10n ** -scale;
  return (digits + divisor - 1n) / divisor;
}

/** The shortest exact quantity: 10737418240n → "10Gi", 1500n → "1500". */
export function bytesToQuantity(bytes: bigint): string {
  for (const suffix of ["Ei", "Pi", "Ti", "Gi", "Mi", "Ki"]) {
    const unit = 1024n ** (suffixes[suffix] ?? [0n, 0n])[1];
    if (bytes !== 0n && bytes % unit === 0n) return `${bytes / unit}${suffix}`;
  }
  return bytes.toString();
}
