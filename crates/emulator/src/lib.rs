//! An IoT Hub for development, with the real one's rules.

pub mod hub;
