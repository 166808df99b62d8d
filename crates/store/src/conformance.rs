//! What every engine must keep: the rules of the contract, as tests.
//!
//! An engine's own tests say how to make one, and [`conformance!`](crate::conformance!) makes a test of each rule:
//!
//! ```ignore
//! store::conformance!(crate::engines());
//! ```
//!
//! where `engines()` gives the engines to hold to each rule, one after the other: a plain one, and some behind
//! [`Faulty`], which loses replies, answers late and wakes for nothing. A rule asks again wherever the contract allows
//! it, so it must hold for those too.
//!
//! Rules never wait for time to pass; they move the [`ManualClock`] that their engine reads.

mod clock;
mod disk;
mod faulty;
pub mod inbox;
pub mod leases;
pub mod outbox;
pub mod registry;
mod rig;
pub mod signals;

use std::{any::Any, sync::Arc, time::Duration};

pub use clock::ManualClock;
pub use disk::{Cut, Disk, HeldFlushes};
pub use faulty::Faulty;

use crate::Store;

/// An engine under test.
#[derive(Clone)]
pub struct Engine {
    /// What a failed rule calls it.
    pub name: String,
    /// The engine, with nothing in it.
    pub store: Store,
    /// The clock that it reads.
    pub clock: ManualClock,
    /// How it was configured.
    pub bounds: Bounds,
    /// What must live as long as the engine.
    pub keeper: Arc<dyn Any + Send + Sync>,
}

/// The bounds of an engine under test. Small ones are quick: at least 8 of everything that is counted.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Unsettled outbox entries of a device.
    pub outbox_entries: usize,
    /// Their bytes; room for `outbox_entries` that carry nothing.
    pub outbox_bytes: usize,
    /// The same for all devices; room for two devices' bytes.
    pub outbox_bytes_in_all: usize,
    /// Messages of a device.
    pub inbox_messages: usize,
    /// Methods of a device.
    pub inbox_methods: usize,
    /// Dead letters of a device that are kept.
    pub dead_letters: usize,
    /// Keys of a device or module.
    pub keys: usize,
    /// Tokens of a device or module.
    pub tokens: usize,
    /// Sealed credentials of all devices.
    pub sealed_credentials: usize,
    /// Abandons that make a dead letter.
    pub max_delivery_count: u32,
    /// How long a session lease lasts.
    pub session_lease: Duration,
}

/// Makes a test of each rule. The argument is an expression that gives engines, anything that can be iterated over; it
/// is evaluated once per rule, in a module of its own, so it names things by their whole path. The crate that uses it needs tokio with its macros and its multi-threaded runtime.
#[macro_export]
macro_rules! conformance {
    ($engines:expr) => {
        $crate::conformance! {
            @rooms $engines;
            outbox {
                entries_of_a_lane_come_in_the_order_of_submission,
                a_take_gives_no_more_than_it_is_asked_for,
                lanes_do_not_delay_each_other,
                devices_do_not_see_each_other,
                submitting_again_gives_a_ticket_of_the_same_entry,
                the_first_outcome_stands,
                dropping_a_ticket_changes_nothing_about_the_entry,
                a_dropped_reader_puts_back_in_order,
                opening_again_ends_the_older_reader,
                an_overdue_entry_is_not_given,
                what_no_session_took_in_time_was_not_sent,
                what_no_session_has_taken_can_be_taken_back,
                what_a_session_has_had_cannot_be_taken_back,
                what_is_taken_may_be_settled_after_its_deadline,
                the_entries_of_a_device_are_bounded,
                answers_are_outside_the_bounds_of_a_device,
                the_bytes_of_a_device_are_bounded,
                the_bytes_of_all_devices_are_bounded,
                a_waiting_reader_misses_nothing,
                a_full_lane_keeps_no_other_waiting,
                a_settled_entry_makes_a_full_lane_ready,
                the_backlog_lists_devices_whose_entries_wait,
                a_durable_entry_is_kept_or_refused,
                a_persisted_entry_has_no_deadline,
                what_is_durable_is_not_given_up,
                a_failure_that_may_pass_puts_a_durable_entry_back,
                a_durable_entry_that_fails_for_good_is_a_dead_letter,
                a_discarded_dead_letter_is_gone,
                the_stock_of_the_outbox_is_what_there_is,
                a_fingerprint_tells_a_repetition_from_another_submission,
                an_id_is_as_good_as_before_what_came_to_nothing,
                an_answer_is_never_sent_twice,
                a_key_is_that_of_one_request_of_whatever_kind,
                a_receipt_follows_its_submission,
                the_keys_of_a_device_are_bounded,
            }
            inbox {
                reading_shows_everything_in_order_and_consumes_nothing,
                appending_again_is_the_same_entry,
                arrivals_that_come_together_keep_their_order,
                what_the_hub_delivers_again_is_the_same_entry,
                a_settlement_of_a_tied_message_waits_for_its_conclusion,
                a_settlement_of_an_untied_message_is_concluded_at_once,
                the_first_conclusion_stands,
                settling_again_is_the_same_settlement,
                of_two_settlements_one_is_lost,
                a_token_that_was_never_given_is_unknown,
                a_rejected_message_is_a_dead_letter,
                an_abandoned_message_is_offered_again_in_its_place,
                a_message_abandoned_too_often_is_a_dead_letter,
                an_expired_message_is_shown_to_nobody,
                a_wall_clock_that_is_set_ends_no_message,
                an_expired_tied_message_goes_with_its_connection,
                a_delivery_lease_hides_from_receive_alone,
                a_delivery_lease_ends_with_its_time,
                a_delivery_lease_ends_with_its_entry,
                withdrawing_takes_what_is_tied_to_the_connection,
                what_arrives_for_a_withdrawn_connection_is_gone,
                messages_are_bounded,
                methods_are_bounded,
                a_settled_message_keeps_its_place_until_concluded,
                a_method_is_claimed_once,
                a_method_past_its_deadline_is_lost,
                a_method_goes_with_its_connection,
                a_method_that_does_not_wait_is_lost,
                the_newest_desired_properties_are_shown,
                the_newest_dead_letters_are_kept,
                a_dead_letter_is_kept_for_a_day,
                a_dead_letter_is_replayed_once_or_was_not_kept,
                a_discarded_dead_letter_is_gone,
                the_stock_of_the_inbox_is_what_there_is,
            }
            leases {
                a_partition_has_one_owner,
                another_node_takes_over_when_the_lease_is_over,
                renewing_prolongs,
                a_lease_that_nobody_took_can_be_renewed,
                a_released_partition_is_free_at_once,
                releasing_what_is_not_held_is_harmless,
                a_stale_lease_is_refused_and_changes_nothing,
                a_lease_is_of_one_partition,
            }
            registry {
                a_device_is_what_was_put_last,
                devices_are_listed_by_partition,
                a_token_is_found_by_its_hash_until_revoked,
                a_credential_is_the_newest_until_it_ends,
                credentials_are_bounded,
                revoking_needs_the_right_identity,
                tokens_are_listed_the_newest_last,
                the_tokens_of_an_identity_are_bounded,
                an_ended_token_is_forgotten_with_the_next_change,
                a_key_is_answered_with_the_first_answer,
                a_forgotten_key_begins_again,
                a_key_ends,
                what_is_noted_of_a_key_is_told_until_it_is_answered,
                a_key_is_kept_whatever_the_wall_clock_does,
            }
            signals {
                a_demand_makes_a_device_wanted_once,
                an_entry_makes_a_device_wanted,
                whoever_waits_for_wanted_devices_misses_none,
                what_is_over_is_not_wanted,
                an_attended_device_is_wanted_again_when_given_up,
                a_device_that_nobody_attended_is_wanted_again,
                a_device_is_wanted_by_the_node_that_owns_it,
                a_node_is_told_of_a_device_once_though_it_acquires_it,
                a_taken_over_device_is_wanted_again,
                needs_are_counted_and_their_end_is_remembered,
                whoever_waits_for_needs_misses_none,
                a_status_is_what_was_said_last,
                open_sessions_are_listed_by_partition,
                a_watch_wakes_for_every_kind_of_change,
                a_watch_misses_nothing,
            }
        }
    };
    (@rooms $engines:expr; $($room:ident { $($rule:ident,)* })*) => {
        $(mod $room {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                for engine in $engines {
                    eprintln!("with {}", engine.name);
                    $crate::conformance::$room::$rule(engine).await;
                }
            })*
        })*
    };
}
