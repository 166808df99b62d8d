//! One device's MQTT session with IoT Hub, as a state machine without IO.
