//! The contract between the two halves: outbox, inbox, registry, leases, signals.
