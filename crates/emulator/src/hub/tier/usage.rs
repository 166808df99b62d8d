//! What has been used: the buckets of the throttles, and the meter of the day.

use std::time::Duration;

use iothub::ErrorCode;
use serde::Serialize;

use super::{Capacity, LONGEST_WAIT, Operation, Tier, bucket::Bucket};
use crate::hub::{Error, Hub, Now};

/// What a hub has counted since it started, and today.
pub(in crate::hub) struct Usage {
    capacity: Option<Capacity>,
    throttles: Vec<Throttle>,
    /// Days since 1970, UTC.
    day: i64,
    messages: u64,
}

struct Throttle {
    operation: Operation,
    bucket: Option<Bucket>,
    passed: u64,
    delayed: u64,
    refused: u64,
}

/// What has been used, for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageInfo {
    /// None if nothing is limited.
    pub tier: Option<Tier>,
    /// How many of the tier.
    pub units: Option<u32>,
    /// Messages that were counted since midnight UTC.
    pub messages_today: u64,
    /// Messages that there may be in a day.
    pub messages_limit: Option<u64>,
    /// Bytes that count as one message.
    pub meter_bytes: u64,
    /// The operations that are throttled, each for itself.
    pub throttles: Vec<ThrottleInfo>,
}

/// What has been used of one throttle, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ThrottleInfo {
    /// Of what.
    pub operation: Operation,
    /// So many ...
    pub limit: Option<u64>,
    /// ... in so many seconds.
    pub per_seconds: Option<u64>,
    /// Were let through, late ones included.
    pub passed: u64,
    /// Were late.
    pub delayed: u64,
    /// Were refused.
    pub refused: u64,
}

impl Usage {
    pub(in crate::hub) fn new(capacity: Option<Capacity>) -> Self {
        let throttle = |operation| Throttle {
            operation,
            bucket: capacity.map(|capacity| Bucket::new(capacity.rate(operation))),
            passed: 0,
            delayed: 0,
            refused: 0,
        };
        Self {
            capacity,
            throttles: Operation::ALL.map(throttle).into(),
            day: 0,
            messages: 0,
        }
    }

    fn meter_bytes(&self) -> u64 {
        self.capacity.map_or(4096, Capacity::meter_bytes)
    }

    fn begin_day(&mut self, now: Now) {
        let day = now.utc.unix_seconds().div_euclid(24 * 3600);
        if self.day != day {
            self.day = day;
            self.messages = 0;
        }
    }
}

impl Hub {
    /// Lets operations through: at once, or after the time that is returned.
    ///
    /// # Errors
    ///
    /// They are throttled.
    pub fn throttle(
        &mut self,
        operation: Operation,
        amount: u64,
        now: Now,
    ) -> Result<Duration, Error> {
        let throttle = &mut self.usage.throttles[operation as usize];
        let turn = throttle
            .bucket
            .as_mut()
            .map_or(Ok(Duration::ZERO), |bucket| {
                bucket.take(amount, LONGEST_WAIT, now.at)
            });
        let Ok(wait) = turn else {
            throttle.refused = throttle.refused.saturating_add(amount);
            // The text of a live hub, 2026.
            return Err(Error::new(
                ErrorCode::ThrottlingBacklogTimeout,
                format!(
                    "The request has been throttled. Wait 10 seconds and try again. Operation type: {}",
                    operation.name()
                ),
            ));
        };
        throttle.passed = throttle.passed.saturating_add(amount);
        if !wait.is_zero() {
            throttle.delayed = throttle.delayed.saturating_add(amount);
        }
        Ok(wait)
    }

    /// Counts messages of these sizes, or what else is charged for.
    ///
    /// # Errors
    ///
    /// The messages of the day are spent. Then nothing is counted.
    pub fn charge(
        &mut self,
        sizes: impl IntoIterator<Item = usize>,
        now: Now,
    ) -> Result<(), Error> {
        let usage = &mut self.usage;
        usage.begin_day(now);
        let meter = usage.meter_bytes();
        let messages = sizes
            .into_iter()
            .map(|bytes| (bytes as u64).div_ceil(meter).max(1))
            .fold(0, u64::saturating_add);
        let limit = usage.capacity.map_or(u64::MAX, Capacity::messages);
        let total = usage.messages.saturating_add(messages);
        if total > limit {
            return Err(Error::new(
                ErrorCode::IotHubQuotaExceeded,
                format!(
                    "The hub may count {limit} messages in a day and has counted {}. The next day begins at 00:00 UTC.",
                    usage.messages
                ),
            ));
        }
        usage.messages = total;
        Ok(())
    }

    /// What has been used.
    pub fn usage(&mut self, now: Now) -> UsageInfo {
        self.usage.begin_day(now);
        let usage = &self.usage;
        let throttles = usage.throttles.iter().map(|throttle| {
            let rate = throttle.bucket.as_ref().map(Bucket::rate);
            ThrottleInfo {
                operation: throttle.operation,
                limit: rate.map(|rate| rate.count),
                per_seconds: rate.map(|rate| rate.period.as_secs()),
                passed: throttle.passed,
                delayed: throttle.delayed,
                refused: throttle.refused,
            }
        });
        UsageInfo {
            tier: usage.capacity.map(|capacity| capacity.tier),
            units: usage.capacity.map(|capacity| capacity.units.get()),
            messages_today: usage.messages,
            messages_limit: usage.capacity.map(Capacity::messages),
            meter_bytes: usage.meter_bytes(),
            throttles: throttles.collect(),
        }
    }
}
