/**
 * The contract of replicas as tests: every kind and every decorator passes it.
 *
 *     replicaContract("local directory on tmpfs", async () => ({ replica, another, vanish, dispose }));
 *
 * Each rule runs on a fresh tree. What a kind cannot do (as `probe` says) is held to answering EOPNOTSUPP, where the
 * rule can tell, and is left out otherwise.
 */
import { describe, test } from "node:test";
import type { Capabilities } from "../replica.ts";
import { attributeRules } from "./contract-attributes.ts";
import { connectionRules } from "./contract-connection.ts";
import { contentRules } from "./contract-content.ts";
import { nameRules } from "./contract-names.ts";
import { placeRules } from "./contract-places.ts";
import { renameRules } from "./contract-renames.ts";
import { xattrRules } from "./contract-xattrs.ts";
import { type Make, Subject } from "./subject.ts";

export type Need = { [K in keyof Capabilities]: Capabilities[K] extends boolean ? K : never }[keyof Capabilities];

/** A sentence that every replica keeps, what it must be able to do for that, and how it shows. */
export interface Rule {
  readonly title: string;
  readonly needs?: readonly (Need | "another" | "vanish")[];
  readonly run: (subject: Subject) => Promise<void>;
}

const rules: readonly Rule[] = [
  ...nameRules,
  ...renameRules,
  ...attributeRules,
  ...xattrRules,
  ...contentRules,
  ...placeRules,
  ...connectionRules,
];

/** `skip`: titles of rules that this kind cannot keep, each with its reason. */
export function replicaContract(name: string, make: Make, skip: Readonly<Record<string, string>> = {}): void {
  describe(`replica contract: ${name}`, () => {
    for (const title of Object.keys(skip)) {
      if (!rules.some((rule) => rule.title === title)) throw new Error(`No rule of the contract is titled "${title}"`);
    }
    for (const rule of rules) {
      const reason = skip[rule.title];
      test(rule.title, reason === undefined ? {} : { skip: reason }, async (t) => {
        const subject = await Subject.start(make);
        try {
          const missing = rule.needs?.filter((need) => !has(subject, need)) ?? [];
          if (missing.length > 0) t.skip(`cannot: ${missing.join(", ")}`);
          else await rule.run(subject);
        } finally {
          await subject.stop();
        }
      });
    }
  });
}

function has(subject: Subject, need: Need | "another" | "vanish"): boolean {
  if (need === "another" || need === "vanish") return subject.made[need] !== undefined;
  return subject.capabilities[need];
}
