//! The text codec, for values that serde represents as one string.

use serde::Serialize;
use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};

pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => Ok(text.into_bytes()),
        Ok(_) => Err("text and bytes carry a string only; use msgpack or json for anything else".into()),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    let text =
        std::str::from_utf8(payload).map_err(|error| format!("not UTF-8 after {} bytes", error.valid_up_to()))?;
    let deserializer: StrDeserializer<'_, Error> = text.into_deserializer();
    T::deserialize(deserializer).map_err(|_| "the handler's type cannot be read from text".into())
}
