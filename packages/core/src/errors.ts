/** What went wrong, as a word that programs can test. */
export type ErrorCode =
  | 'CONFIG'
  | 'SHAPE'
  | 'CONFLICT'
  | 'UNCOVERED'
  | 'ENGINE'
  | 'KERNEL'
  | 'NON_FINITE'
  | 'DATA'
  | 'CHECKPOINT'
  | 'COMMUNICATION'
  | 'ABORTED';

const MARK = Symbol.for('frugal.error');

/**
 * The one error class of Frugal. Its message says what was expected, what was received and what to do;
 * `code` says which kind it is.
 *
 * @example
 * ```ts
 * try { topK({ keep: 2 }); } catch (error) { if (FrugalError.is(error, 'CONFIG')) console.error(error.message); }
 * ```
 */
export class FrugalError extends Error {
  /** Kind of the error. */
  readonly code: ErrorCode;
  /** True on every FrugalError, also across two copies of the package. */
  readonly [MARK] = true;

  /**
   * @param code - kind of the error
   * @param message - what was expected, what was received, what to do
   * @param options - `cause`, the error beneath
   */
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'FrugalError';
    this.code = code;
  }

  /** Is `value` a FrugalError (of this code, if one is given)? Works across copies of the package. */
  static is(value: unknown, code?: ErrorCode): value is FrugalError {
    const marked = typeof value === 'object' && value !== null && MARK in value;
    return marked && (code === undefined || (value as FrugalError).code === code);
  }
}

/** Writes a value for an error message: short, with its type where that helps. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'function') return `function ${value.name || '(anonymous)'}`;
  if (typeof value === 'number' || value === null || value === undefined) return String(value);
  const text = JSON.stringify(value) ?? typeof value;
  return `${text.length > 60 ? `${text.slice(0, 57)}...` : text} (${typeof value})`;
}
