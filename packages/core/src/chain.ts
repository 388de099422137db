import * as tf from '@tensorflow/tfjs';
import { FrugalError } from './errors.js';
import type { Method } from './method.js';
import type { Scope } from './scope.js';
import type { Communicator } from './communicator.js';
import type { ExchangeTransform, LocalTransform, Param, State, Transform, Updates } from './transform.js';

/** The links between dW and W as one: what the trainer and the `fit` adapter run. */
export interface Chain {
  /** The links, in order. */
  readonly links: readonly Transform[];
  /** Name of the first exchange link, if there is one: then `applyAsync` must be used. */
  readonly exchange: string | undefined;
  /** Makes the state of all links; later calls do nothing. */
  init(params: readonly Param[]): void;
  /** Turns gradients into new weights. Only without exchange links. */
  apply(gradients: Updates, params: readonly Param[], scope: Scope): void;
  /** Turns gradients into new weights, awaiting other ranks. The gradients are disposed. */
  applyAsync(gradients: Updates, params: readonly Param[], scope: Scope, communicator: Communicator): Promise<void>;
  /** State of all links, by name. */
  state(): State;
  /** Current values of the hyper-parameters of all links. */
  hyperparameters(scope: Scope): Record<string, number>;
  /** Frees the state. */
  dispose(): void;
}

/**
 * The links of a run, in order: those that the methods bring, unless they are listed among the ones given, then these.
 *
 * @throws {@link FrugalError} `CONFIG` for an exchange link of a method that is not listed: whether it stands before or after the sum
 * over ranks is another algorithm
 */
export function linksOf(methods: readonly Method[], given: Transform | readonly Transform[]): Transform[] {
  const listed = [given].flat();
  const brought = methods.flatMap((method) => method.transforms ?? []).filter((link) => !listed.includes(link));
  const unplaced = brought.find((link) => link.kind === 'exchange');
  if (unplaced)
    throw new FrugalError(
      'CONFIG',
      `${unplaced.name}: expected its link, which exchanges with other ranks, to be listed in optimizer but it is not. Put it where it belongs, as in optimizer: [allReduce(), method.link, sgd({ … })].`,
    );
  return [...brought, ...listed];
}

/** W += ΔW. */
function add(updates: Updates, params: readonly Param[]): void {
  for (const { name, value } of params) {
    const update = updates.get(name);
    if (update) value.assign(tf.add(value, update));
  }
}

/** Runs local links; the last link of the chain applies, by its fused form if it has one. */
function runLocal(
  links: readonly LocalTransform[],
  last: boolean,
  updates: Updates,
  params: readonly Param[],
  scope: Scope,
): Updates {
  let current = updates;
  links.forEach((link, index) => {
    const isLast = last && index === links.length - 1;
    if (isLast && link.apply) {
      link.apply(current, params, scope);
    } else {
      current = link.update(current, params, scope);
      if (isLast) add(current, params);
    }
  });
  return current;
}

/** Splits links into runs of one kind. */
function segments(links: readonly Transform[]): (readonly LocalTransform[] | ExchangeTransform)[] {
  const result: (LocalTransform[] | ExchangeTransform)[] = [];
  for (const link of links) {
    const previous = result.at(-1);
    if (link.kind === 'exchange') result.push(link);
    else if (Array.isArray(previous)) previous.push(link);
    else result.push([link]);
  }
  return result;
}

const disposeExcept = (old: Updates, fresh: Updates): void => {
  const kept = new Set(fresh.values());
  for (const tensor of old.values()) if (!kept.has(tensor)) tensor.dispose();
};

async function runSegments(
  links: readonly Transform[],
  gradients: Updates,
  params: readonly Param[],
  scope: Scope,
  communicator: Communicator,
): Promise<void> {
  let current = gradients;
  const parts = segments(links);
  for (const [index, part] of parts.entries()) {
    const last = index === parts.length - 1;
    const before = current;
    if ('kind' in part) {
      current = await part.exchange(before, params, scope, communicator);
    } else {
      const fresh = tf.tidy(() => Object.fromEntries(runLocal(part, last, before, params, scope)));
      current = new Map(Object.entries(fresh));
    }
    disposeExcept(before, current);
    if (last && 'kind' in part) tf.tidy(() => add(current, params));
  }
  for (const tensor of current.values()) tensor.dispose();
}

/**
 * Makes one chain of links.
 *
 * @throws {@link FrugalError} `CONFIG` when there is no link
 */
export function chain(links: readonly Transform[]): Chain {
  if (links.length === 0)
    throw new FrugalError('CONFIG', 'A chain needs at least one link, for example sgd({ learningRate: 0.1 }).');
  let ready = false;
  return {
    links,
    exchange: links.find((link) => link.kind === 'exchange')?.name,
    init(params) {
      if (!ready) {
        tf.tidy(() => {
          for (const link of links) link.init(params);
        });
      }
      ready = true;
    },
    apply(gradients, params, scope) {
      tf.tidy(() => {
        runLocal(links as readonly LocalTransform[], true, gradients, params, scope);
      });
    },
    applyAsync: (gradients, params, scope, communicator) => runSegments(links, gradients, params, scope, communicator),
    state: () => new Map(links.flatMap((link) => [...link.state()])),
    hyperparameters: (scope) =>
      Object.fromEntries(links.flatMap((link) => Object.entries(link.hyperparameters?.(scope) ?? {}))),
    dispose() {
      for (const link of links) link.dispose();
      ready = false;
    },
  };
}
