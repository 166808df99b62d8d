//! An HTTPS gateway to Azure IoT Hub for devices that speak nothing else.
