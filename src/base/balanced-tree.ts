/**
 * The balancing of the interval tree: an AVL tree whose nodes carry a summary of their subtree.
 *
 * Linux: lib/rbtree.c with augmented callbacks. A subclass says how nodes are ordered and how a node's summary follows from
 * its children; searching is the subclass's own business. Nodes are the records themselves: no boxing, no parent links.
 */

export interface TreeNode<N> {
  left: N | null;
  right: N | null;
  /** Levels of the subtree: 1 for a leaf. */
  height: number;
}

export abstract class BalancedTree<N extends TreeNode<N>> {
  protected root: N | null = null;
  #size = 0;

  /** Records in the tree. */
  get size(): number {
    return this.#size;
  }

  /** The order of the tree: strict and total. */
  protected abstract precedes(a: N, b: N): boolean;

  /** Recompute the summary of `node`'s subtree from the node and its two children. */
  protected abstract summarise(node: N): void;

  /** Precondition: `node` is not in a tree. */
  protected attach(node: N): void {
    node.left = node.right = null;
    this.root = this.#with(this.root, node);
    this.#size++;
  }

  /** Precondition: `node` is in this tree. */
  protected detach(node: N): void {
    this.root = this.#without(this.root!, node);
    this.#size--;
  }

  #with(at: N | null, node: N): N {
    if (at === null) return this.#settled(node);
    if (this.precedes(node, at)) at.left = this.#with(at.left, node);
    else at.right = this.#with(at.right, node);
    return this.#balanced(at);
  }

  #without(at: N, node: N): N | null {
    if (at === node) return this.#joined(at.left, at.right);
    if (this.precedes(node, at)) at.left = this.#without(at.left!, node);
    else at.right = this.#without(at.right!, node);
    return this.#balanced(at);
  }

  /** One tree of two neighbouring ones that differ by one level at the most. */
  #joined(left: N | null, right: N | null): N | null {
    if (left === null) return right;
    if (right === null) return left;
    let middle = right;
    while (middle.left !== null) middle = middle.left;
    middle.right = this.#withoutFirst(right);
    middle.left = left;
    return this.#balanced(middle);
  }

  #withoutFirst(at: N): N | null {
    if (at.left === null) return at.right;
    at.left = this.#withoutFirst(at.left);
    return this.#balanced(at);
  }

  /** Restore |height(left) - height(right)| <= 1 at `node`, whose children are balanced and differ by two at the most. */
  #balanced(node: N): N {
    const { left, right } = node;
    const lean = heightOf(left) - heightOf(right);
    if (lean > 1) {
      if (heightOf(left!.left) < heightOf(left!.right)) node.left = this.#rotatedLeft(left!);
      return this.#rotatedRight(node);
    }
    if (lean < -1) {
      if (heightOf(right!.right) < heightOf(right!.left)) node.right = this.#rotatedRight(right!);
      return this.#rotatedLeft(node);
    }
    return this.#settled(node);
  }

  #rotatedLeft(node: N): N {
    const top = node.right!;
    node.right = top.left;
    top.left = this.#settled(node);
    return this.#settled(top);
  }

  #rotatedRight(node: N): N {
    const top = node.left!;
    node.left = top.right;
    top.right = this.#settled(node);
    return this.#settled(top);
  }

  #settled(node: N): N {
    node.height = 1 + Math.max(heightOf(node.left), heightOf(node.right));
    this.summarise(node);
    return node;
  }
}

function heightOf<N>(node: TreeNode<N> | null): number {
  return node === null ? 0 : node.height;
}
