use super::{Book, Holder};
use ipam_api::names::NodeName;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Nodes kept in memory, at most; beyond it all are forgotten. Those that say something every second matter.
const MOST: usize = 16_384;

/// Nodes as they were when a transaction last touched them. They may have changed since: whoever decides by what is
/// known lets the database confirm it.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct KnownHolders {
    inner: Arc<Mutex<HashMap<NodeName, Arc<Holder>>>>,
}

impl KnownHolders {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeName, Arc<Holder>>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node, if it is known.
    pub(in crate::store) fn get(&self, name: &NodeName) -> Option<Arc<Holder>> {
        self.lock().get(name).cloned()
    }

    /// Keeps the nodes of a book that was committed, and forgets those that it was to have and that are not there (any
    /// more): their words would never be confirmed, nor those that are said with them.
    pub(in crate::store) fn keep(&self, book: Book, wanted: &BTreeSet<&NodeName>) {
        let mut known = self.lock();
        for gone in wanted.iter().filter(|name| !book.holders.contains_key(**name)) {
            known.remove(*gone);
        }
        let new = book.holders.keys().filter(|name| !known.contains_key(*name)).count();
        if known.len() + new > MOST {
            known.clear();
        }
        known.extend(book.holders.into_iter().map(|(name, holder)| (name, Arc::new(holder))));
    }
}
