//! What is the same for all requests: reading them, answering errors, limits, listening.

pub mod body;
pub mod creation;
pub mod edge;
pub mod json;
pub mod layers;
pub mod listen;
pub mod paging;
pub mod params;
pub mod precondition;

pub use body::Body;
pub use creation::Creation;
pub use params::Params;
