//! What will happen, by time; at the same time, in the order in which it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A queue of things that will happen.
#[derive(Debug)]
pub struct Queue<T> {
    /// Time, order of planning, place of the thing.
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    things: Vec<Option<T>>,
    vacant: Vec<u32>,
    planned: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Queue<T> {
    /// A queue of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), things: Vec::new(), vacant: Vec::new(), planned: 0 }
    }

    /// Plans a thing.
    pub fn push(&mut self, at_us: u64, thing: T) {
        let place = self.vacant.pop().unwrap_or(self.things.len() as u32);
        match self.things.get_mut(place as usize) {
            Some(vacant) => *vacant = Some(thing),
            None => self.things.push(Some(thing)),
        }
        self.heap.push(Reverse((at_us, self.planned, place)));
        self.planned += 1;
    }

    /// The next thing and its time.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse((at_us, _, place)) = self.heap.pop()?;
        self.vacant.push(place);
        let thing = self.things[place as usize].take();
        Some((at_us, thing.expect("each place in the heap holds a thing until it is popped")))
    }

    /// Whether nothing will happen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;

    #[test]
    fn things_come_by_time_then_by_plan() {
        let mut queue = Queue::new();
        for (at_us, name) in [(3, 'd'), (1, 'a'), (2, 'b'), (2, 'c')] {
            queue.push(at_us, name);
        }
        let names: String = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(names, "abcd");
        assert!(queue.is_empty());
    }
}
