//! Packet ids of one connection.

/// The ids in use. They are few, a window's worth, so a list does.
pub(crate) struct PacketIds {
    last: u16,
    used: Vec<u16>,
}

impl PacketIds {
    pub(crate) const fn new() -> Self {
        Self {
            last: 0,
            used: Vec::new(),
        }
    }

    /// An id that is not in use: the next in the round, never 0.
    pub(crate) fn acquire(&mut self) -> u16 {
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !self.used.contains(&self.last) {
                self.used.push(self.last);
                return self.last;
            }
        }
    }

    /// Takes an id out of the round that an earlier connection of the session gave out.
    pub(crate) fn reserve(&mut self, id: u16) {
        self.used.push(id);
    }

    pub(crate) fn release(&mut self, id: u16) {
        self.used.retain(|used| *used != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_round_without_0_and_without_those_in_use() {
        let mut ids = PacketIds::new();
        ids.reserve(2);
        assert_eq!((ids.acquire(), ids.acquire()), (1, 3));
        ids.release(2);
        ids.last = u16::MAX - 1;
        assert_eq!((ids.acquire(), ids.acquire()), (u16::MAX, 2));
    }
}
