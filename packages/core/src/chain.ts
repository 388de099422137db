import * as tf from '@tensorflow/tfjs';
import type {
  Link,
  OpenedExchange,
  OpenedGradient,
  OpenedLink,
  OpenedUpdate,
  OpenedWeights,
  Param,
  Updates,
} from './link.js';
import { checkChain, exchangeIn } from './links.js';
import { openAll, type RunContext, type State } from './opened.js';
import type { Schedule } from './schedule.js';
import type { Scope } from './scope.js';

/** The links between dW and W, opened for one run: what the trainer and the `fit` adapter run. */
export interface Chain {
  /** The links, in order. */
  readonly links: readonly Link[];
  /** Name of the first exchange link, if there is one: then `applyAsync` must be used. */
  readonly exchange: string | undefined;
  /** Is there a link that must be prepared? */
  readonly prepares: string | undefined;
  /** Loads what links must await. */
  prepare(): Promise<void>;
  /** Turns gradients into new weights. Only without exchange links. */
  apply(gradients: Updates, scope: Scope): void;
  /** Turns gradients into new weights, awaiting other ranks. The gradients are disposed. */
  applyAsync(gradients: Updates, scope: Scope): Promise<void>;
  /** Lets the links behind the update follow weights that something else has moved. */
  moved(scope: Scope): void;
  /** The learning rate of a weight. */
  rateOf(param: Param): Schedule | undefined;
  /** What validation and the end of the run use in place of the weights; empty for the weights. Borrowed. */
  settled(): ReadonlyMap<string, tf.Tensor>;
  /** State of all links, by name; a name that stands twice ends in `#2`. */
  state(): State;
  /** Current values of the hyper-parameters of all links. */
  hyperparameters(scope: Scope): Record<string, number>;
  /** Frees the state. */
  dispose(): void;
}

type Before =
  | { readonly kind: 'gradient'; readonly opened: OpenedGradient }
  | { readonly kind: 'exchange'; readonly opened: OpenedExchange };

/** The links of a run by what they do. */
interface Parts {
  readonly before: readonly Before[];
  readonly update: OpenedUpdate | undefined;
  readonly exchanging: boolean;
  readonly after: readonly OpenedWeights[];
}

const disposeExcept = (old: Updates, fresh: Updates): void => {
  const kept = new Set(fresh.values());
  for (const tensor of old.values()) if (!kept.has(tensor)) tensor.dispose();
};

const follow = (after: readonly OpenedWeights[], scope: Scope): void => {
  if (after.length > 0)
    tf.tidy(() => {
      for (const link of after) link.moved(scope);
    });
};

/** Runs of gradient links, with the exchanges between them. */
function segmentsOf(before: readonly Before[]): (readonly OpenedGradient[] | OpenedExchange)[] {
  const result: (OpenedGradient[] | OpenedExchange)[] = [];
  for (const link of before) {
    const previous = result.at(-1);
    if (link.kind === 'exchange') result.push(link.opened);
    else if (Array.isArray(previous)) previous.push(link.opened);
    else result.push([link.opened]);
  }
  return result;
}

const throughAll = (links: readonly OpenedGradient[], gradients: Updates, scope: Scope): Updates =>
  links.reduce<Updates>((current, link) => link.transform(current, scope), gradients);

/** The gradients after all links before the update. What is no longer used is disposed, also where a link throws. */
async function beforeUpdate(before: readonly Before[], gradients: Updates, scope: Scope): Promise<Updates> {
  let current = gradients;
  try {
    for (const part of segmentsOf(before)) {
      const old = current;
      current = Array.isArray(part)
        ? new Map(Object.entries(tf.tidy(() => Object.fromEntries(throughAll(part, old, scope)))))
        : await (part as OpenedExchange).exchange(old, scope);
      disposeExcept(old, current);
    }
    return current;
  } catch (error) {
    tf.dispose([...current.values()]);
    throw error;
  }
}

async function runAwaiting(parts: Parts, gradients: Updates, scope: Scope): Promise<void> {
  const { before, update, exchanging, after } = parts;
  const current = await beforeUpdate(before, gradients, scope);
  try {
    if (exchanging) await update?.apply(current, scope);
    else tf.tidy(() => void update?.apply(current, scope));
  } finally {
    tf.dispose([...current.values()]);
  }
  follow(after, scope);
}

/** State by name. Links of one kind in one chain have equal names. */
function statesOf(all: Iterable<OpenedLink>): State {
  const states = new Map<string, tf.Variable | Float64Array>();
  for (const link of all) {
    for (const [name, kept] of link.state?.() ?? []) {
      let unique = name;
      for (let use = 2; states.has(unique); use++) unique = `${name}#${use}`;
      states.set(unique, kept);
    }
  }
  return states;
}

function partsOf(opened: ReadonlyMap<Link, OpenedLink>): Parts {
  const all = [...opened];
  const update = all.find(([{ kind }]) => kind === 'update');
  return {
    before: all.flatMap(([{ kind }, link]): Before[] =>
      kind === 'gradient'
        ? [{ kind, opened: link as OpenedGradient }]
        : kind === 'exchange'
          ? [{ kind, opened: link as OpenedExchange }]
          : [],
    ),
    update: update?.[1] as OpenedUpdate | undefined,
    exchanging: update?.[0].kind === 'update' && update[0].exchanges === true,
    after: all.flatMap(([{ kind }, link]) => (kind === 'weights' ? [link as OpenedWeights] : [])),
  };
}

/**
 * Opens links for one run.
 *
 * @param owner - names the caller in errors
 * @throws {@link FrugalError} `CONFIG` where they make no chain, with the right order
 */
export function openChain(owner: string, links: readonly Link[], context: RunContext): Chain {
  const update = checkChain(owner, links);
  return openLinks(links, context, (param) => update.rateOf(param));
}

/** Opens links that need not have an update. */
export function openLinks(links: readonly Link[], context: RunContext, rateOf: Chain['rateOf']): Chain {
  const opened: ReadonlyMap<Link, OpenedLink> = openAll(links, context);
  const parts = partsOf(opened);
  const all = [...opened.values()];
  return {
    links,
    exchange: exchangeIn(links),
    prepares: links.find((link) => opened.get(link)?.prepare !== undefined)?.name,
    async prepare() {
      for (const link of all) await link.prepare?.();
    },
    apply(gradients, scope) {
      tf.tidy(() => {
        const changed = throughAll(
          parts.before.map(({ opened: link }) => link as OpenedGradient),
          gradients,
          scope,
        );
        void parts.update?.apply(changed, scope);
      });
      follow(parts.after, scope);
    },
    applyAsync: (gradients, scope) => runAwaiting(parts, gradients, scope),
    moved: (scope) => follow(parts.after, scope),
    rateOf,
    settled: () => new Map([parts.update, ...parts.after].flatMap((link) => [...(link?.settled?.() ?? [])])),
    state: () => statesOf(all),
    hyperparameters: (scope) =>
      Object.fromEntries(all.flatMap((link) => Object.entries(link.hyperparameters?.(scope) ?? {}))),
    dispose() {
      for (const link of all) link.dispose?.();
    },
  };
}
