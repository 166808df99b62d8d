//! What the hub touches: the sessions that this node holds.
