/**
 * Files without a name that are still in use: unlinked while open, replaced by a rename while open, or made with
 * O_TMPFILE. They live as `.chiron/orphans/<id>` on every replica, so they survive a restart of the process, a change of
 * leader and a resync like any other file, and are removed at the last release.
 */
import { type Tree, TreeNode } from "./tree.ts";

/** The control directory at the root of every replica; hidden from the volume. */
export const CONTROL_DIRECTORY = ".chiron";
const ORPHANS = "orphans";

export class Orphans {
  readonly control: TreeNode;
  readonly directory: TreeNode;

  constructor(tree: Tree) {
    // Pinned for good, and outside of the tree's children: no lookup finds them.
    this.control = new TreeNode(tree.root, CONTROL_DIRECTORY);
    this.control.pins = 1;
    this.directory = new TreeNode(this.control, ORPHANS);
    this.directory.pins = 1;
  }

  nameOf(node: { readonly id: number }): string {
    return String(node.id);
  }

  /** Is this one of its names? */
  holds(node: TreeNode): boolean {
    return this.directory.children?.get(this.nameOf(node)) === node;
  }
}
