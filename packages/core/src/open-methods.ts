import type { Method, OpenedMethod } from './method.js';
import { openAll, type Reporting, type RunContext, type State } from './opened.js';
import { FrugalError } from './errors.js';
import type { Param } from './link.js';
import type { Schedule } from './schedule.js';

/** The methods of a run. */
export interface OpenedMethods {
  /** What everything in the run is opened with. */
  readonly context: RunContext;
  /** What each method has become. */
  readonly methods: ReadonlyMap<Method, OpenedMethod>;
  /** Tells {@link RunContext.rateOf} what moves the weights. */
  setRates(rateOf: (param: Param) => Schedule | undefined): void;
  /** Loads what must be awaited. */
  prepare(): Promise<void>;
  /** State of all methods, by name. */
  state(): State;
  /** What a method or a link of the run tells of itself. */
  of<Report>(description: Reporting<Report>): Report;
  /** Frees what they hold. */
  dispose(): void;
}

/** The error of a description that the run has not opened, or that tells nothing. */
export function noReport({ name }: Reporting<unknown>): FrugalError {
  return new FrugalError(
    'CONFIG',
    `${name}: expected a link or a method that this run has opened and that makes a report, but it is not. Ask with the value that the run was given.`,
  );
}

function reportOf<Report>({ opened }: RunContext, description: Reporting<Report>): Report {
  const found = opened.get(description);
  if (found?.report) return found.report() as Report;
  throw noReport(description);
}

function nothingMoves({ name }: Param): never {
  throw new FrugalError(
    'CONFIG',
    `expected an update, as sgd({ … }), behind what asks for the learning rate of ${name}, but nothing moves this weight. List one in the optimizer.`,
  );
}

/** Opens methods for one run. */
export function openMethods(
  methods: readonly Method[],
  parts: Omit<RunContext, 'rateOf' | 'once' | 'opened'>,
): OpenedMethods {
  const made = new Map<object, unknown>();
  let rates: (param: Param) => Schedule | undefined = () => undefined;
  const context: RunContext = {
    ...parts,
    opened: new Map(),
    rateOf: (param) => rates(param) ?? nothingMoves(param),
    once<T>(key: object, make: () => T): T {
      if (!made.has(key)) made.set(key, make());
      return made.get(key) as T;
    },
  };
  const twice = methods.find((method, i) => methods.indexOf(method) !== i);
  if (twice) throw new FrugalError('CONFIG', `${twice.name}: expected a method once but received it twice. Drop one.`);
  const opened = openAll(methods, context);
  const all = [...opened.values()];
  return {
    context,
    methods: opened,
    setRates: (rateOf) => void (rates = rateOf),
    async prepare() {
      for (const method of all) await method.prepare?.();
    },
    state: () => new Map(all.flatMap((method) => [...(method.state?.() ?? [])])),
    of: (description) => reportOf(context, description),
    dispose() {
      for (const method of all) method.dispose?.();
    },
  };
}
