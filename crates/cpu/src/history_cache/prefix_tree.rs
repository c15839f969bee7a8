use std::collections::HashMap;
use std::hash::Hash;

use canet_domain::Item;

/// Values by the items of a history, found by the longest prefix that a value's history has in common with another one.
///
/// Histories of different keys have nothing in common. It is a radix tree: a node stands for a run of items, and a value for the items on the way to its node. Values are in a
/// list by the time of their last use.
pub(super) struct PrefixTree<K, V> {
    /// The first nodes, by key and first item.
    roots: HashMap<(K, Item), u32>,
    nodes: Vec<Node<K, V>>,
    /// Nodes that stand for nothing.
    free: Vec<u32>,
    /// The ends of the list of values, [`NONE`] if it is empty.
    oldest: u32,
    newest: u32,
    len: usize,
    /// Bytes of the items of all nodes.
    item_bytes: usize,
}

struct Node<K, V> {
    /// At least one item, unless the node is free.
    items: Vec<Item>,
    /// Items from the start of the history to the end of this node.
    depth: usize,
    parent: Parent<K>,
    /// Sorted by the first item.
    children: Vec<(Item, u32)>,
    value: Option<V>,
    /// The neighbours in the list of values.
    older: u32,
    newer: u32,
}

#[derive(Clone, Copy)]
enum Parent<K> {
    Key(K),
    Node(u32),
}

/// The index of no node.
const NONE: u32 = u32::MAX;

/// A value whose history begins like another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    node: u32,
    /// How many items both begin with.
    pub(super) tokens: usize,
    /// Whether the value's history has no further item.
    pub(super) whole: bool,
}

impl<K, V> Default for PrefixTree<K, V> {
    fn default() -> PrefixTree<K, V> {
        PrefixTree {
            roots: HashMap::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            len: 0,
            item_bytes: 0,
        }
    }
}

impl<K: Copy + Eq + Hash, V> PrefixTree<K, V> {
    /// The number of values.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the tree itself. Memory that removed values left behind counts too, because the tree keeps it.
    pub(super) fn bytes(&self) -> usize {
        // A hash table has a byte of its own for each entry. A list of children grows by doubling, from four.
        let (root, child) = (size_of::<((K, Item), u32)>() + 1, 4 * size_of::<(Item, u32)>());
        self.nodes.capacity() * size_of::<Node<K, V>>()
            + (self.nodes.len() - self.free.len()) * child
            + self.free.capacity() * size_of::<u32>()
            + self.roots.capacity() * root
            + self.item_bytes
    }

    /// The value of a key whose history has the longest prefix in common with `items`.
    pub(super) fn longest(&self, key: K, items: &[Item]) -> Option<Match> {
        let mut node = *self.roots.get(&(key, *items.first()?))?;
        loop {
            let Node { items: run, depth, children, value, .. } = &self.nodes[node as usize];
            let before = depth - run.len();
            let common = common(run, &items[before..]);
            let tokens = before + common;
            let next = || items.get(tokens).and_then(|item| child(children, *item));
            match next().filter(|_| common == run.len()) {
                Some(child) => node = child,
                None => {
                    let whole = common == run.len() && value.is_some();
                    return Some(Match { node: self.valued(node), tokens, whole });
                }
            }
        }
    }

    /// A node with a value at or below `node`. Every node without children has one.
    fn valued(&self, mut node: u32) -> u32 {
        while let Node { value: None, children, .. } = &self.nodes[node as usize]
            && let Some((_, child)) = children.first()
        {
            node = *child;
        }
        node
    }

    /// The value of a match.
    pub(super) fn get(&mut self, found: Match) -> Option<&mut V> {
        self.nodes[found.node as usize].value.as_mut()
    }

    /// The match was used now.
    pub(super) fn touch(&mut self, found: Match) {
        self.unlink(found.node);
        self.link_newest(found.node);
    }

    /// Takes the value of a match out.
    pub(super) fn remove(&mut self, found: Match) -> Option<V> {
        let value = self.nodes[found.node as usize].value.take()?;
        self.unlink(found.node);
        self.len -= 1;
        self.tidy(found.node);
        Some(value)
    }

    /// Takes out the value that was not used for the longest time.
    pub(super) fn remove_oldest(&mut self) -> Option<V> {
        let node = self.oldest;
        (node != NONE).then(|| self.remove(Match { node, tokens: 0, whole: true })).flatten()
    }

    /// Stores the value of a history, which must have an item, as used now. Returns the value that it replaces.
    pub(super) fn insert(&mut self, key: K, items: &[Item], value: V) -> Option<V> {
        let first = *items.first()?;
        let node = match self.roots.get(&(key, first)) {
            Some(root) => self.place(*root, items),
            None => {
                let node = self.add(items.to_vec(), items.len(), Parent::Key(key));
                self.roots.insert((key, first), node);
                node
            }
        };
        let before = self.nodes[node as usize].value.replace(value);
        match before {
            Some(_) => self.unlink(node),
            None => self.len += 1,
        }
        self.link_newest(node);
        before
    }

    /// The node at the end of `items`, which begin with the first item of the root. Creates it if it does not exist.
    fn place(&mut self, mut node: u32, items: &[Item]) -> u32 {
        loop {
            let Node { items: run, depth, .. } = &self.nodes[node as usize];
            let before = depth - run.len();
            let common = common(run, &items[before..]);
            if common < run.len() {
                node = self.split(node, common);
            }
            let end = before + common;
            let Some(next) = items.get(end) else { return node };
            match child(&self.nodes[node as usize].children, *next) {
                Some(child) => node = child,
                None => {
                    let leaf = self.add(items[end..].to_vec(), items.len(), Parent::Node(node));
                    let children = &mut self.nodes[node as usize].children;
                    let at = children.partition_point(|(item, _)| item < next);
                    children.insert(at, (*next, leaf));
                    return leaf;
                }
            }
        }
    }

    /// Splits a node behind its first `count` items, which get a node of their own. Returns that one.
    fn split(&mut self, node: u32, count: usize) -> u32 {
        let lower = &mut self.nodes[node as usize];
        let rest = lower.items.split_off(count);
        let run = std::mem::replace(&mut lower.items, rest);
        let (parent, depth) = (lower.parent, lower.depth - lower.items.len());
        let below = (lower.items[0], node);
        self.item_bytes -= size_of_val(&run[..]);
        let (first, upper) = (run[0], self.add(run, depth, parent));
        self.nodes[upper as usize].children.push(below);
        self.nodes[node as usize].parent = Parent::Node(upper);
        self.set_child(parent, first, upper);
        upper
    }

    /// A new node, which its parent does not know yet.
    fn add(&mut self, items: Vec<Item>, depth: usize, parent: Parent<K>) -> u32 {
        self.item_bytes += size_of_val(&items[..]);
        let node = Node { items, depth, parent, children: Vec::new(), value: None, older: NONE, newer: NONE };
        if let Some(free) = self.free.pop() {
            self.nodes[free as usize] = node;
            return free;
        }
        self.nodes.push(node);
        // Each node holds at least an item of its own, so memory ends long before the indices do.
        u32::try_from(self.nodes.len() - 1).unwrap_or(NONE)
    }

    /// Puts a node in the place of its parent's child of the same first item.
    fn set_child(&mut self, parent: Parent<K>, first: Item, node: u32) {
        match parent {
            Parent::Key(key) => {
                self.roots.insert((key, first), node);
            }
            Parent::Node(parent) => {
                let children = &mut self.nodes[parent as usize].children;
                if let Ok(at) = children.binary_search_by_key(&first, |(item, _)| *item) {
                    children[at].1 = node;
                }
            }
        }
    }

    /// Removes a node that has neither a value nor children, and joins a node without a value with its only child.
    fn tidy(&mut self, mut node: u32) {
        loop {
            let Node { items, parent, children, value, .. } = &self.nodes[node as usize];
            let (first, parent) = (items[0], *parent);
            match (value, children.as_slice()) {
                (None, []) => {
                    self.release(node);
                    match parent {
                        Parent::Key(key) => {
                            self.roots.remove(&(key, first));
                            return;
                        }
                        Parent::Node(parent) => {
                            self.nodes[parent as usize].children.retain(|(item, _)| *item != first);
                            node = parent;
                        }
                    }
                }
                (None, &[(_, child)]) => {
                    let mut run = self.release(node);
                    self.item_bytes += size_of_val(&run[..]);
                    let child_node = &mut self.nodes[child as usize];
                    run.append(&mut child_node.items);
                    (child_node.items, child_node.parent) = (run, parent);
                    self.set_child(parent, first, child);
                    return;
                }
                _ => return,
            }
        }
    }

    /// Frees a node and returns its items.
    fn release(&mut self, node: u32) -> Vec<Item> {
        let released = &mut self.nodes[node as usize];
        released.children = Vec::new();
        let items = std::mem::take(&mut released.items);
        self.item_bytes -= size_of_val(&items[..]);
        self.free.push(node);
        items
    }

    fn unlink(&mut self, node: u32) {
        let Node { older, newer, .. } = self.nodes[node as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.nodes[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
    }

    fn link_newest(&mut self, node: u32) {
        let before = std::mem::replace(&mut self.newest, node);
        (self.nodes[node as usize].older, self.nodes[node as usize].newer) = (before, NONE);
        match before {
            NONE => self.oldest = node,
            before => self.nodes[before as usize].newer = node,
        }
    }
}

/// How many items both lists begin with.
fn common(a: &[Item], b: &[Item]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The child that begins with an item.
fn child(children: &[(Item, u32)], first: Item) -> Option<u32> {
    let at = children.binary_search_by_key(&first, |(item, _)| *item).ok()?;
    Some(children[at].1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use canet_testing::{item, rng};
    use proptest::prelude::*;
    use rand::Rng;

    use super::*;

    fn items(ids: &[u32]) -> Vec<Item> {
        ids.iter().map(|id| item(*id)).collect()
    }

    #[test]
    fn the_longest_common_prefix_is_found_in_the_middle_of_a_run_too() {
        let mut tree = PrefixTree::default();
        tree.insert(0, &items(&[1, 2, 3, 4]), 'a');
        tree.insert(0, &items(&[1, 2, 5]), 'b');
        tree.insert(1, &items(&[1, 2, 3, 4, 5, 6]), 'c');
        let mut find = |slice, ids: &[u32]| {
            let found = tree.longest(slice, &items(ids))?;
            Some((*tree.get(found).unwrap(), found.tokens, found.whole))
        };
        assert_eq!(find(0, &[1, 2, 3, 4, 9]), Some(('a', 4, true)));
        assert_eq!(find(0, &[1, 2, 3, 9]), Some(('a', 3, false)));
        assert_eq!(find(0, &[1, 2, 5, 6]), Some(('b', 3, true)));
        assert_eq!(find(1, &[1, 2, 3, 4, 5]), Some(('c', 5, false)));
        assert_eq!((find(0, &[2]), find(2, &[1])), (None, None));
        assert!(matches!(find(0, &[1, 7]), Some((_, 1, false))));
    }

    #[test]
    fn the_value_that_was_used_longest_ago_leaves_first() {
        let mut tree = PrefixTree::default();
        for id in 1..=3 {
            assert_eq!(tree.insert(0, &items(&[9, id]), id), None);
        }
        let first = tree.longest(0, &items(&[9, 1])).unwrap();
        tree.touch(first);
        assert_eq!(tree.insert(0, &items(&[9, 2]), 20), Some(2));
        assert_eq!([tree.remove_oldest(), tree.remove_oldest(), tree.remove_oldest()], [Some(3), Some(1), Some(20)]);
        assert_eq!((tree.remove_oldest(), tree.len(), tree.item_bytes, tree.roots.len()), (None, 0, 0, 0));
        assert_eq!(tree.free.len(), tree.nodes.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        /// A map that compares all histories is the reference.
        #[test]
        fn a_map_of_histories_agrees(seed in any::<u64>(), steps in 1..120_usize) {
            let mut rng = rng(seed);
            let (mut tree, mut map) = (PrefixTree::default(), HashMap::new());
            for step in 0..steps {
                let ids: Vec<u32> = (0..rng.gen_range(1..9)).map(|_| rng.gen_range(1..=2)).collect();
                let (slice, history) = (rng.gen_range(0..2), items(&ids));
                match rng.gen_range(0..4) {
                    0 | 1 => {
                        prop_assert_eq!(tree.insert(slice, &history, step), map.insert((slice, history), step));
                    }
                    2 => {
                        let found = tree.longest(slice, &history).filter(|found| {
                            found.whole && found.tokens == history.len()
                        });
                        let removed = found.and_then(|found| tree.remove(found));
                        prop_assert_eq!(removed, map.remove(&(slice, history)));
                    }
                    _ => {
                        let longest = |(of, stored): &(u32, Vec<Item>)| {
                            if *of == slice { common(stored, &history) } else { 0 }
                        };
                        let expected = map.keys().map(longest).max().filter(|tokens| *tokens > 0);
                        let found = tree.longest(slice, &history);
                        prop_assert_eq!(found.map(|found| found.tokens), expected);
                        if let Some(found) = found {
                            let value = *tree.get(found).unwrap();
                            let (_, stored) = map.iter().find(|(_, of)| **of == value).unwrap().0;
                            prop_assert_eq!(common(stored, &history), found.tokens);
                            prop_assert_eq!(found.whole, stored.len() == found.tokens);
                        }
                    }
                }
                prop_assert_eq!(tree.len(), map.len());
            }
            while let Some(value) = tree.remove_oldest() {
                map.retain(|_, of| *of != value);
                prop_assert_eq!(tree.len(), map.len());
            }
            prop_assert!(map.is_empty() && tree.item_bytes == 0 && tree.roots.is_empty());
        }
    }
}
