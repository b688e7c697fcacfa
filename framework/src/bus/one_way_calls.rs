//! The one-way calls by key that `Bus` and `Context` share. A macro writes their names, signatures and documentation. The calls
//! that take a contract are not among them, because the compiler would report a wrong contract inside the macro.

use crate::bus::Options;

/// Leaves the options at their defaults.
pub(crate) fn defaults(options: Options) -> Options {
    options
}

/// Writes the calls into the `impl` block of the type `$This`, whose method `by_key` sends. `$found` ends the sentence that tells
/// when the caller learns that no service takes the message.
macro_rules! one_way_calls {
    ($This:literal, $found:literal $(, $async:tt $await:tt)?) => {
        /// Sends a command by its key.
        ///
        /// # Errors
        #[doc = concat!("As [`", $This, "::send`].")]
        pub $($async)? fn send_key(&self, key: &str, payload: Payload) -> Result<MessageId, SendError> {
            self.send_key_with(key, payload, defaults)$(.$await)?
        }

        #[doc = concat!("[`", $This, "::send_key`] with options.")]
        ///
        /// # Errors
        #[doc = concat!("As [`", $This, "::send`].")]
        pub $($async)? fn send_key_with(
            &self,
            key: &str,
            payload: Payload,
            options: impl FnOnce(Options) -> Options,
        ) -> Result<MessageId, SendError> {
            self.by_key(Address { kind: Kind::Command, key, service: None }, payload, options)$(.$await)?
        }

        /// Sends a command to a service by the service's name.
        ///
        /// # Errors
        #[doc = concat!("As [`", $This, "::send`].")]
        pub $($async)? fn send_to(&self, service: &str, key: &str, payload: Payload) -> Result<MessageId, SendError> {
            self.send_to_with(service, key, payload, defaults)$(.$await)?
        }

        #[doc = concat!("[`", $This, "::send_to`] with options.")]
        ///
        /// # Errors
        #[doc = concat!("As [`", $This, "::send`].")]
        pub $($async)? fn send_to_with(
            &self,
            service: &str,
            key: &str,
            payload: Payload,
            options: impl FnOnce(Options) -> Options,
        ) -> Result<MessageId, SendError> {
            self.by_key(Address { kind: Kind::Command, key, service: Some(service) }, payload, options)$(.$await)?
        }

        /// Publishes an event by its key.
        ///
        /// # Errors
        #[doc = concat!("As [`", $This, "::publish`].")]
        pub $($async)? fn publish_key(&self, key: &str, payload: Payload) -> Result<MessageId, SendError> {
            self.publish_key_with(key, payload, defaults)$(.$await)?
        }

        #[doc = concat!("[`", $This, "::publish_key`] with options.")]
        ///
        /// # Errors
        #[doc = concat!("As [`", $This, "::publish`].")]
        pub $($async)? fn publish_key_with(
            &self,
            key: &str,
            payload: Payload,
            options: impl FnOnce(Options) -> Options,
        ) -> Result<MessageId, SendError> {
            self.by_key(Address { kind: Kind::Event, key, service: None }, payload, options)$(.$await)?
        }

        /// Sends a message to a named channel of a named service.
        ///
        /// # Errors
        #[doc = concat!("[`SendError`]; `Unroutable` when the service has no such channel, `WrongKind` when it is a query", $found)]
        pub $($async)? fn send_channel(
            &self,
            service: &str,
            channel: &str,
            payload: Payload,
        ) -> Result<MessageId, SendError> {
            self.send_channel_with(service, channel, payload, defaults)$(.$await)?
        }

        #[doc = concat!("[`", $This, "::send_channel`] with options.")]
        ///
        /// # Errors
        #[doc = concat!("As [`", $This, "::send_channel`].")]
        pub $($async)? fn send_channel_with(
            &self,
            service: &str,
            channel: &str,
            payload: Payload,
            options: impl FnOnce(Options) -> Options,
        ) -> Result<MessageId, SendError> {
            self.by_key(Address { kind: Kind::Channel, key: channel, service: Some(service) }, payload, options)$(.$await)?
        }
    };
}

pub(crate) use one_way_calls;
