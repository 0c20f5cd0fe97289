//! A set of byte strings with an id each, made for one question: which of them is the longest beginning of these bytes?
//!
//! A double array (Aoe, 1989): the child of a node for byte `b` can only stand at `base ^ b`, and stands there if that
//! slot names the node as its parent. A step is one load of 8 bytes; BERT's vocabulary takes half a megabyte.

use std::collections::VecDeque;

/// The node of the empty string.
pub(super) const ROOT: u32 = 0;

/// A slot that holds no node. The root has it for a parent, since nothing leads there.
const FREE: u32 = u32::MAX;

/// Set in `base` where a string of the set ends.
const ENDS: u32 = 1 << 31;

/// A node's children share the upper bits of their slots, so a base that is inside the array has all of them inside.
const BLOCK: usize = 256;

/// How many of the newest blocks are searched for room. More would pack tighter and take longer to build.
const OPEN_BLOCKS: usize = 16;

#[derive(Clone, Copy)]
struct Node {
    parent: u32,
    base: u32,
}

/// The strings, and what is looked up in them.
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// By node; has a meaning where a string ends.
    ids: Vec<u32>,
}

impl Trie {
    /// The strings must differ. `None` if there are too many for 31 bits of nodes.
    pub(super) fn new<'a>(strings: impl IntoIterator<Item = (&'a [u8], u32)>) -> Option<Self> {
        let mut strings: Vec<_> = strings.into_iter().collect();
        strings.sort_unstable();
        let mut trie = Self { nodes: Vec::new(), ids: Vec::new() };
        let mut open = VecDeque::new();
        trie.grow(&mut open);
        let mut used = vec![1];

        // Each entry is a node, the strings that go through it, and its depth: their common beginning.
        let mut waiting = vec![(ROOT, strings.as_slice(), 0)];
        while let Some((node, mut strings, depth)) = waiting.pop() {
            let at = node as usize;
            if let Some(((string, id), longer)) = strings.split_first()
                && string.len() == depth
            {
                trie.ids[at] = *id;
                trie.nodes[at].base |= ENDS;
                strings = longer;
            }
            let children: Vec<_> = strings.chunk_by(|(a, _), (b, _)| a[depth] == b[depth]).collect();
            let bytes: Vec<u8> = children.iter().map(|strings| strings[0].0[depth]).collect();
            if bytes.is_empty() {
                continue;
            }
            let base = trie.room(&bytes, &open, &used).unwrap_or_else(|| {
                used.push(0);
                trie.grow(&mut open)
            });
            let block = base as usize / BLOCK;
            used[block] += bytes.len();
            if used[block] == BLOCK {
                open.retain(|&open| open != block);
            }
            if base >= ENDS {
                return None;
            }
            trie.nodes[at].base |= base;
            for (byte, strings) in bytes.into_iter().zip(children) {
                let child = base ^ u32::from(byte);
                trie.nodes[child as usize].parent = node;
                waiting.push((child, strings, depth + 1));
            }
        }
        Some(trie)
    }

    /// A base whose slots for all these bytes are free.
    fn room(&self, bytes: &[u8], open: &VecDeque<usize>, used: &[usize]) -> Option<u32> {
        let free = |slot: usize| slot != ROOT as usize && self.nodes[slot].parent == FREE;
        let first = usize::from(*bytes.first()?);
        let fits = |base: usize| bytes.iter().all(|&byte| free(base ^ usize::from(byte)));
        open.iter()
            .filter(|&&block| used[block] + bytes.len() <= BLOCK)
            .flat_map(|block| block * BLOCK..(block + 1) * BLOCK)
            .filter(|&slot| free(slot))
            .map(|slot| slot ^ first)
            .find(|&base| fits(base))
            .map(|base| base as u32)
    }

    /// Adds a block and returns its first slot, a base that fits every node.
    fn grow(&mut self, open: &mut VecDeque<usize>) -> u32 {
        let start = self.nodes.len();
        self.nodes.resize(start + BLOCK, Node { parent: FREE, base: 0 });
        self.ids.resize(start + BLOCK, 0);
        open.push_back(start / BLOCK);
        if open.len() > OPEN_BLOCKS {
            open.pop_front();
        }
        start as u32
    }

    /// Where a node's child for this byte stands, if it has one.
    #[inline(always)]
    fn child(&self, node: u32, base: u32, byte: u8) -> Option<(u32, u32)> {
        let child = (base & !ENDS) ^ u32::from(byte);
        self.nodes.get(child as usize).filter(|found| found.parent == node).map(|found| (child, found.base))
    }

    /// The node of a string, if a string of the set begins with it.
    pub(super) fn node(&self, string: &[u8]) -> Option<u32> {
        string.iter().try_fold(ROOT, |node, &byte| Some(self.child(node, self.nodes.get(node as usize)?.base, byte)?.0))
    }

    /// The longest string of the set that is the string of `from` and then a beginning, not empty, of `bytes` as `fold`
    /// reads them. Returns how many of them, and the string's id.
    #[inline(always)]
    pub(super) fn longest(&self, from: u32, bytes: &[u8], fold: impl Fn(u8) -> u8) -> Option<(usize, u32)> {
        let (mut node, mut base) = (from, self.nodes.get(from as usize)?.base);
        let (mut length, mut last) = (0, from);
        for (i, &byte) in bytes.iter().enumerate() {
            let Some(child) = self.child(node, base, fold(byte)) else { break };
            (node, base) = child;
            if base & ENDS != 0 {
                (length, last) = (i + 1, node);
            }
        }
        (length > 0).then(|| self.ids.get(last as usize).map(|&id| (length, id)))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    fn strings() -> impl Strategy<Value = std::collections::BTreeMap<Vec<u8>, u32>> {
        // Few letters make long common beginnings, all bytes make full nodes.
        let byte = prop_oneof![3 => 97..100_u8, 1 => any::<u8>()];
        btree_map(vec(byte, 1..6), any::<u32>(), 0..600)
    }

    proptest! {
        #[test]
        fn the_longest_is_what_a_search_finds(set in strings(), text in vec(97..100_u8, 0..12), from in vec(97..100_u8, 0..3)) {
            let trie = Trie::new(set.iter().map(|(string, &id)| (string.as_slice(), id))).unwrap();
            for (string, &id) in &set {
                prop_assert_eq!(trie.longest(ROOT, string, |byte| byte), Some((string.len(), id)));
            }
            let begun = set.keys().any(|string| string.starts_with(&from)) || from.is_empty();
            prop_assert_eq!(trie.node(&from).is_some(), begun);
            if let Some(node) = trie.node(&from) {
                let joined = [from.as_slice(), &text].concat();
                let expected = (1..=text.len()).rev().find_map(|n| Some((n, *set.get(&joined[..from.len() + n])?)));
                prop_assert_eq!(trie.longest(node, &text, |byte| byte), expected);
            }
        }
    }

    #[test]
    fn bytes_are_folded_as_they_are_read() {
        let trie = Trie::new([(b"abc".as_slice(), 7)]).unwrap();
        assert_eq!(trie.longest(ROOT, b"ABCD", |byte| byte.to_ascii_lowercase()), Some((3, 7)));
        assert_eq!(trie.longest(ROOT, b"ABCD", |byte| byte), None);
    }
}
