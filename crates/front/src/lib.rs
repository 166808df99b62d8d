//! What devices touch: listeners, authentication, the verbs of a device, delivery.
