use serde::de::DeserializeOwned;
use serde_path_to_error::{Error, Track, deserialize};

/// A JSON document that does not fit its type. The message begins with the path of the field at fault.
pub type JsonError = Error<serde_json::Error>;

/// Parses a document and nothing after it.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = deserialize(&mut deserializer)?;
    deserializer.end().map_err(|error| Error::new(Track::new().path(), error))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::parse;

    fn error(text: &str) -> String {
        parse::<BTreeMap<String, Vec<u8>>>(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_the_field() {
        assert!(error("{\"a\": [1, true]}").starts_with("a[1]: invalid type: boolean `true`, expected u8"));
    }

    #[test]
    fn bytes_after_the_document_are_an_error() {
        assert!(error("{} {}").starts_with("trailing characters at line 1"));
    }
}
