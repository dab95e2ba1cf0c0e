//! Addresses of a network, each given to one at a time; pure.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use super::error::{NetworkError, Result};

/// The addresses of a network: the first is the gateway's, the last for broadcasts, the others are given in turn, so
/// that one which was given back rests for as long as there are others.
#[derive(Clone, Debug)]
pub struct Addresses {
    network: u32,
    prefix_bits: u8,
    taken: HashSet<u32>,
    /// Offset of the address that is tried next.
    next: u32,
}

/// Offsets of a network's number and of its gateway.
const RESERVED_COUNT: u32 = 2;

impl Addresses {
    /// All free.
    ///
    /// # Errors
    /// [`NetworkError::Invalid`] for bits out of 8 to 29, or a network with bits behind its number.
    pub fn new(network: Ipv4Addr, prefix_bits: u8) -> Result<Self> {
        if !(8..=29).contains(&prefix_bits) {
            return Err(NetworkError::invalid(
                "prefix_bits",
                format!("{prefix_bits} is not within 8 and 29"),
            ));
        }
        let number = u32::from(network);
        if number & (u32::MAX >> prefix_bits) != 0 {
            let why = format!("{network} has bits behind the first {prefix_bits}");
            return Err(NetworkError::invalid("network", why));
        }
        Ok(Self { network: number, prefix_bits, taken: HashSet::new(), next: RESERVED_COUNT })
    }

    /// The host's own.
    pub fn gateway(&self) -> Ipv4Addr {
        (self.network + 1).into()
    }

    /// How many can be given in all.
    pub fn count(&self) -> u32 {
        self.end() - RESERVED_COUNT
    }

    /// How many are given.
    pub fn taken_count(&self) -> usize {
        self.taken.len()
    }

    /// One past the last offset that is given.
    fn end(&self) -> u32 {
        u32::MAX >> self.prefix_bits
    }

    /// The next free one.
    ///
    /// # Errors
    /// [`NetworkError::Full`].
    pub fn take(&mut self) -> Result<Ipv4Addr> {
        if self.taken.len() < self.count() as usize {
            loop {
                let offset = self.next;
                self.next = if offset + 1 >= self.end() { RESERVED_COUNT } else { offset + 1 };
                if self.taken.insert(offset) {
                    return Ok((self.network + offset).into());
                }
            }
        }
        Err(NetworkError::Full { network: self.network.into(), prefix_bits: self.prefix_bits })
    }

    /// Takes a certain one, as an agent does for instances that it found; false if it is no free one of the network.
    pub fn claim(&mut self, address: Ipv4Addr) -> bool {
        self.offset(address).is_some_and(|offset| self.taken.insert(offset))
    }

    /// Gives one back; one that was not taken is no error.
    pub fn give_back(&mut self, address: Ipv4Addr) {
        if let Some(offset) = self.offset(address) {
            self.taken.remove(&offset);
        }
    }

    fn offset(&self, address: Ipv4Addr) -> Option<u32> {
        let offset = u32::from(address).checked_sub(self.network)?;
        (RESERVED_COUNT..self.end()).contains(&offset).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_smallest_network_gives_five_in_turn() {
        let mut addresses = Addresses::new(Ipv4Addr::new(10, 0, 0, 8), 29).expect("valid");
        assert_eq!((addresses.gateway(), addresses.count()), (Ipv4Addr::new(10, 0, 0, 9), 5));
        let all: Vec<u8> = (0..5).map(|_| addresses.take().expect("free").octets()[3]).collect();
        assert_eq!(all, [10, 11, 12, 13, 14]);
        assert!(matches!(addresses.take(), Err(NetworkError::Full { prefix_bits: 29, .. })));
        addresses.give_back(Ipv4Addr::new(10, 0, 0, 12));
        addresses.give_back(Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(addresses.take().expect("one").octets()[3], 12);
        assert!(addresses.take().is_err());
    }

    #[test]
    fn senseless_networks_are_refused() {
        for (network, bits) in
            [([10, 0, 0, 0], 7), ([10, 0, 0, 0], 30), ([10, 0, 0, 1], 24), ([10, 1, 0, 0], 8)]
        {
            assert!(Addresses::new(network.into(), bits).is_err());
        }
        let mut addresses = Addresses::new([10, 0, 0, 0].into(), 24).expect("valid");
        for address in [[10, 0, 0, 0], [10, 0, 0, 1], [10, 0, 0, 255], [10, 0, 1, 2], [9, 0, 0, 2]] {
            assert!(!addresses.claim(address.into()));
        }
        assert!(addresses.claim([10, 0, 0, 2].into()) && !addresses.claim([10, 0, 0, 2].into()));
        assert_eq!(addresses.take().expect("the next"), Ipv4Addr::new(10, 0, 0, 3));
    }

    proptest! {
        #[test]
        fn none_is_given_twice(steps in proptest::collection::vec(any::<Option<u8>>(), 0..100)) {
            let mut addresses = Addresses::new([192, 168, 7, 0].into(), 27).expect("valid");
            let mut given = Vec::new();
            for step in steps {
                match step {
                    None => match addresses.take() {
                        Ok(address) => {
                            prop_assert!(!given.contains(&address) && address != addresses.gateway());
                            given.push(address);
                        }
                        Err(_) => prop_assert_eq!(given.len() as u32, addresses.count()),
                    },
                    Some(which) if !given.is_empty() => {
                        addresses.give_back(given.swap_remove(usize::from(which) % given.len()));
                    }
                    Some(_) => {}
                }
                prop_assert_eq!(addresses.taken_count(), given.len());
            }
        }
    }
}
