//! Lists that go over partitions, an answer's worth at a time.

use api::Code;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use iothub::Identity;
use store::Partition;

use super::Query;
use crate::http::problem::Refusal;

/// A walk over the store's pages. It ends with the last partition, or when an answer is full.
pub(super) struct Walk {
    /// The next page: its partition, and where it starts there.
    at: Option<(Partition, Option<String>)>,
    last: Partition,
    items: usize,
}

impl Walk {
    /// Over all partitions, from where `after` in the query says.
    pub(super) fn over_all(query: &Query<'_>) -> Result<Self, Refusal> {
        let partition = |number| Partition::from_number(number).ok_or_else(wrong);
        Self::new(partition(0)?, partition(Partition::COUNT - 1)?, query)
    }

    /// Over the partition of one device.
    pub(super) fn over_one(identity: &Identity, query: &Query<'_>) -> Result<Self, Refusal> {
        let partition = Partition::of(identity);
        Self::new(partition, partition, query)
    }

    fn new(first: Partition, last: Partition, query: &Query<'_>) -> Result<Self, Refusal> {
        let at = match query.get("after")? {
            None => (first, None),
            Some(after) => parse(&after)
                .filter(|(partition, _)| (first..=last).contains(partition))
                .ok_or_else(wrong)?,
        };
        Ok(Self {
            at: Some(at),
            last,
            items: 0,
        })
    }

    /// Which page to ask the store for; none if the answer is full, or there are no more.
    pub(super) fn next_page(&self) -> Option<(Partition, Option<&str>)> {
        let (partition, after) = self.at.as_ref()?;
        (self.items < ENOUGH).then_some((*partition, after.as_deref()))
    }

    /// The page had so many items for the answer, and the next one of its partition starts there.
    pub(super) fn took(&mut self, items: usize, next: Option<String>) {
        self.items += items;
        self.at = self.at.take().and_then(|(partition, _)| match next {
            Some(next) => Some((partition, Some(next))),
            None => Partition::from_number(partition.number() + 1)
                .filter(|following| *following <= self.last)
                .map(|following| (following, None)),
        });
    }

    /// What to ask for to get the rest; none if there is none.
    pub(super) fn rest(self) -> Option<String> {
        let (partition, after) = self.at?;
        let after = after.unwrap_or_default();
        Some(BASE64.encode(format!("{} {after}", partition.number())))
    }
}

fn parse(text: &str) -> Option<(Partition, Option<String>)> {
    let text = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
    let (partition, after) = text.split_once(' ')?;
    let partition = Partition::from_number(partition.parse().ok()?)?;
    Some((partition, (!after.is_empty()).then(|| after.to_owned())))
}

fn wrong() -> Refusal {
    Refusal::new(
        Code::InvalidRequest,
        "after is what \"next\" of the answer before said, of the same list",
    )
}

/// An answer with so many items is full. The store's last page makes it a hundred more at most.
const ENOUGH: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks over pages of so many items, and counts the answers.
    fn walk(pages_of_a_partition: usize, items_of_a_page: usize) -> (usize, usize) {
        let (mut answers, mut items) = (0, 0);
        let mut query = String::new();
        loop {
            let mut walk = Walk::over_all(&Query(&query)).unwrap();
            while let Some((_, after)) = walk.next_page() {
                let page = after.map_or(0, |after| after.parse::<usize>().unwrap());
                let next = page + 1;
                let next = (next < pages_of_a_partition).then(|| next.to_string());
                items += items_of_a_page;
                walk.took(items_of_a_page, next);
            }
            answers += 1;
            match walk.rest() {
                Some(rest) => query = format!("after={rest}"),
                None => return (answers, items),
            }
        }
    }

    #[test]
    fn every_page_is_seen_once_whatever_the_answers_hold() {
        let partitions = usize::from(Partition::COUNT);
        assert_eq!(walk(1, 0), (1, 0));
        assert_eq!(walk(1, 1), (partitions.div_ceil(100), partitions));
        // Full with the very last page: there is no rest.
        assert_eq!(walk(2, 100), (2 * partitions, 200 * partitions));
        assert_eq!(walk(3, 99), (3 * partitions / 2, 297 * partitions));
    }

    #[test]
    fn what_is_no_place_of_the_list_is_refused() {
        let device: Identity =
            Identity::device("hub.example".parse().unwrap(), "dev1".parse().unwrap());
        let own = Partition::of(&device);
        for (text, is_place) in [
            (format!("{} ", own.number()), true),
            (format!("{} hub/dev1 7", own.number()), true),
            (
                format!("{} x", (own.number() + 1) % Partition::COUNT),
                false,
            ),
            ("1024 x".to_owned(), false),
            ("x".to_owned(), false),
        ] {
            let query = format!("after={}", BASE64.encode(&text));
            let walk = Walk::over_one(&device, &Query(&query));
            assert_eq!(walk.is_ok(), is_place, "{text}");
        }
        assert!(Walk::over_all(&Query("after=*")).is_err());
    }
}
