use canet_domain::Catalogue;
use hashbrown::HashMap;

/// Dense ids from 0, in the order of first appearance. One text is kept for each.
#[derive(Default)]
pub(crate) struct DenseIds {
    ids: HashMap<Box<str>, u32>,
    /// The id that was asked for last. Logs often have a user's interactions together.
    last: (String, u32),
}

impl DenseIds {
    /// The dense id of an external id; `None` if there are too many.
    pub(crate) fn get(&mut self, id: &str) -> Option<u32> {
        if self.last.0 == id && !self.ids.is_empty() {
            return Some(self.last.1);
        }
        let dense = match self.ids.get(id) {
            Some(dense) => *dense,
            None => {
                let next = Some(self.ids.len()).filter(|next| *next < Catalogue::MAX_ITEMS)?;
                let dense = u32::try_from(next).ok()?;
                self.ids.insert(id.into(), dense);
                dense
            }
        };
        self.last.0.clear();
        self.last.0.push_str(id);
        self.last.1 = dense;
        Some(dense)
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The external ids in the order of the dense ones.
    pub(crate) fn into_ids(self) -> Vec<Box<str>> {
        let mut ids = vec![Box::from(""); self.ids.len()];
        for (id, dense) in self.ids {
            ids[dense as usize] = id;
        }
        ids
    }
}
