//! An HTTPS gateway to Azure IoT Hub for devices that speak nothing else.

pub mod config;
pub mod data_folder;
#[cfg(feature = "emulator")]
pub mod development_ca;
pub mod logs;
