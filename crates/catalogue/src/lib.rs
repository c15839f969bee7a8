//! What a catalogue file says about the items of a model: titles, hidden items, and the values that requests filter by.
//!
//! [`ItemIndex`] joins a file with the items of one model. A request's [`FilterExpression`] and [`MaxPer`] become a
//! [`Restriction`] on such an index, which refuses unknown keys and values. The restriction then answers three questions:
//! which items are allowed, as an [`ItemSet`](canet_domain::ItemSet) that every backend ranks within; whether one item is
//! allowed; and which of a ranking's items its quotas admit. [`most_popular`] ranks within a restriction without a
//! model.

mod expression;
mod filter;
mod greedy;
mod index;
mod nearest;
mod pool;
mod popularity;
mod restriction;

pub use expression::{FilterExpression, MaxPer};
pub use filter::UnknownName;
pub use greedy::{Greedy, Quotas};
pub use index::{ItemIndex, KeySummary};
pub use pool::SetPool;
pub use popularity::{ColdStart, most_popular};
pub use restriction::{AllowedSet, Restriction};
