//! A queue that is nearly always empty, and then as small as a pointer.

use std::collections::VecDeque;

/// See the module's docs.
#[expect(clippy::box_collection, reason = "a queue is four words, and every connection has two")]
pub struct RareQueue<T>(Option<Box<VecDeque<T>>>);

impl<T> Default for RareQueue<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> RareQueue<T> {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// From the first to the last.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flat_map(|queue| queue.iter())
    }

    /// The last.
    pub fn back_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()?.back_mut()
    }

    /// Put something behind the last.
    pub fn push_back(&mut self, item: T) {
        self.0.get_or_insert_default().push_back(item);
    }

    /// Put something before the first.
    pub fn push_front(&mut self, item: T) {
        self.0.get_or_insert_default().push_front(item);
    }

    /// Take out the first.
    #[inline]
    pub fn pop_front(&mut self) -> Option<T> {
        let queue = self.0.as_mut()?;
        let first = queue.pop_front();
        if queue.is_empty() {
            self.0 = None;
        }
        first
    }
}

impl<T> IntoIterator for RareQueue<T> {
    type Item = T;
    type IntoIter = std::collections::vec_deque::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.map_or_else(VecDeque::new, |queue| *queue).into_iter()
    }
}
