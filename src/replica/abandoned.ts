/**
 * Answers that nobody waits for any longer, since their deadline has passed. The call may still end; whoever carries it
 * out then leaves alone the buffers and attributes that it was given, for their owner uses them for something else by
 * now. So a call that answers later works on memory of its own, and copies at the end, unless its answer (the promise
 * itself, which is all that both sides know) was abandoned.
 */
const abandoned = new WeakSet<Promise<number>>();

export function abandon(answer: Promise<number>): void {
  abandoned.add(answer);
}

/** A result, or a result and what belongs into the caller's memory. */
export type WithValue<T> = number | readonly [result: number, value: T];

/** Answers the result; the value goes to `deliver` first, unless the answer that this returns was abandoned. */
export function deliverUnlessAbandoned<T>(call: Promise<WithValue<T>>, deliver: (value: T) => void): Promise<number> {
  const answer: Promise<number> = call.then((reply) => {
    if (typeof reply === "number") return reply;
    if (!abandoned.has(answer)) deliver(reply[1]);
    return reply[0];
  });
  return answer;
}
