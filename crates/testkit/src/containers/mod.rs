//! Real containers for tests: the shipped compose file under names and addresses of a test's own, and what an engine does to containers.
//!
//! Whatever is made here has a name with the test process's number in it. It is removed when its handle is dropped; when the process ends
//! in any other way, by a shell that waits for that; and by the next one that starts, if that shell was killed too.

mod engine;
mod image;
mod leftovers;
mod stack;

pub use engine::{docker, is_available};
pub use image::test_image;
pub use stack::{MEMBERS, Stack};
