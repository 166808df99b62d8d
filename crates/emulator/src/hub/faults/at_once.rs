//! Faults that happen once: to everyone who is connected, or to the hub's clock.

use std::time::Duration;

use iothub::{DeviceId, Identity, ModuleId, Timestamp};

use super::Fault;
use crate::hub::{CloseReason, Hub, Now, timers::Timer};

impl Hub {
    /// The hub's own time: that of `now`, and what [`Fault::JumpClock`] has added. Whoever runs the hub reads the clocks
    /// and passes this on.
    #[must_use]
    pub const fn time(&self, now: Now) -> Now {
        let millis = now.utc.unix_millis().saturating_add(self.clock_jump_millis);
        Now {
            at: now.at,
            utc: Timestamp::from_unix_millis(millis),
        }
    }

    /// Does what the rule at `index` does once.
    pub(super) fn strike_now(&mut self, index: usize, now: Now) {
        let fault = self.faults.rules[index].rule.fault.clone();
        if let Fault::JumpClock { by_millis } = fault {
            return self.jump_clock(by_millis, now);
        }
        if let Fault::FailOver {} = fault {
            return self.fail_over(now);
        }
        for whom in self.struck(index) {
            let Ok(record) = self.registry.record_mut(&whom) else {
                continue;
            };
            let connection = record.connection;
            let reason = if let Fault::ExpireTokens {} = fault {
                record.tokens_expired_until = record.newest_token;
                CloseReason::TokenExpired
            } else {
                CloseReason::Dropped
            };
            let Some(connection) = connection else {
                continue;
            };
            let by_token = self
                .open_mut(connection)
                .is_some_and(|open| open.token_expires_at.is_some());
            if let Fault::FreezeConnection { millis } = fault {
                self.freeze(connection, now.at + Duration::from_millis(millis), now);
            } else if by_token || reason != CloseReason::TokenExpired {
                self.close(connection, reason, now);
            }
        }
    }

    /// Whether the hub is at its other address. Whoever runs the hub listens there then, and nowhere else.
    #[must_use]
    pub const fn is_moved(&self) -> bool {
        self.is_moved
    }

    fn fail_over(&mut self, now: Now) {
        self.is_moved = !self.is_moved;
        let mut connections: Vec<_> = self.connections.keys().copied().collect();
        // In the order in which they came: a map has none, and a run has to repeat.
        connections.sort_unstable();
        for connection in connections {
            self.close(connection, CloseReason::Moved, now);
        }
    }

    /// Whom the rule at `index` strikes, of all devices and modules.
    fn struck(&mut self, index: usize) -> Vec<Identity> {
        let identity = |device: &DeviceId, module: Option<&ModuleId>| {
            self.identity(device.clone(), module.cloned())
        };
        let mut all = Vec::new();
        for (id, device) in self.registry.iter() {
            all.push(identity(id, None));
            all.extend(
                device
                    .modules
                    .keys()
                    .map(|module| identity(id, Some(module))),
            );
        }
        let (rule, seed) = (&mut self.faults.rules[index], self.faults.seed);
        all.retain(|whom| rule.is_for(Some(whom)) && rule.strikes(Some(whom), seed));
        all
    }

    /// Sets the wall clock, and has everything looked at that it might have made due.
    fn jump_clock(&mut self, by_millis: i64, now: Now) {
        self.clock_jump_millis = self.clock_jump_millis.saturating_add(by_millis);
        for (device, entry) in self.registry.iter() {
            self.timers.set(now.at, Timer::Messages(device.clone()));
            for connection in entry.connections() {
                self.timers.set(now.at, Timer::Connection(connection));
            }
        }
    }
}
