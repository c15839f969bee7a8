use std::collections::HashMap;
use std::path::Path;

use super::ImportError;
use super::pickle::Setting;

/// Settings of a training, by RecBole's names.
pub(super) struct Settings(pub(super) HashMap<String, Setting<String>>);

impl Settings {
    /// Refuses a file that sets something else than what is computed. A file without the setting passes.
    pub(super) fn expect(
        &self,
        path: &Path,
        name: &'static str,
        wanted: &str,
        advice: &str,
    ) -> Result<(), ImportError> {
        match self.0.get(name) {
            None => Ok(()),
            Some(Setting::Text(found)) if found == wanted => Ok(()),
            Some(Setting::Text(found)) => Err(refused(path, name, format!("{found:?}; {advice}"))),
            Some(_) => Err(refused(path, name, format!("no text; {advice}"))),
        }
    }

    pub(super) fn number(&self, path: &Path, name: &'static str) -> Result<Option<f64>, ImportError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Setting::Float(value)) => Ok(Some(*value)),
            Some(Setting::Int(value)) => Ok(Some(*value as f64)),
            Some(_) => Err(refused(path, name, "no number".to_owned())),
        }
    }
}

/// The error of a setting that does not fit, for `reason`.
pub(super) fn refused(path: &Path, setting: &'static str, reason: String) -> ImportError {
    ImportError::Setting { path: path.to_owned(), setting, reason }
}
