//! An HTTPS gateway to Azure IoT Hub for devices that speak nothing else.
//!
//! This crate is the composition root: it reads what was asked ([`cli`]) and how ([`config`]), hands the store to both
//! halves of the gateway, waits, and stops in order. It decides nothing about requests or messages.

pub mod cli;
pub mod config;
pub mod data_folder;
#[cfg(feature = "emulator")]
pub mod development_ca;
pub mod listen;
pub mod logs;
