//! What there is, for the operator.

use std::{iter::Sum, ops::Add};

use iothub::Timestamp;

/// What one device, or several together, have in the outbox or in the inbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stock {
    /// Entries that are not settled, or messages that no device has settled.
    pub waiting: u64,
    /// Their bytes, as the bounds count them.
    pub bytes: u64,
    /// When the oldest of those came that are the first of their device: how far behind delivery is. A dead letter that was
    /// replayed stands behind younger entries, so it shows when it is the first.
    pub oldest: Option<Timestamp>,
    /// Dead letters that are kept.
    pub dead_letters: u64,
}

impl Add for Stock {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            waiting: self.waiting + other.waiting,
            bytes: self.bytes + other.bytes,
            oldest: [self.oldest, other.oldest].into_iter().flatten().min(),
            dead_letters: self.dead_letters + other.dead_letters,
        }
    }
}

impl Sum for Stock {
    fn sum<I: Iterator<Item = Self>>(stocks: I) -> Self {
        stocks.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_several_is_theirs() {
        let stock = |seconds: Option<i64>| Stock {
            waiting: 1,
            bytes: 2,
            oldest: seconds.map(Timestamp::from_unix_seconds),
            dead_letters: 3,
        };
        let all: Stock = [stock(None), stock(Some(7)), stock(Some(5))]
            .into_iter()
            .sum();
        assert_eq!((all.waiting, all.bytes, all.dead_letters), (3, 6, 9));
        assert_eq!(all.oldest, Some(Timestamp::from_unix_seconds(5)));
        assert_eq!([].into_iter().sum::<Stock>(), Stock::default());
    }
}
