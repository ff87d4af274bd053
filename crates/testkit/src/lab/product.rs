//! What keeps the virtual address: Trestle, and what it is compared with.

use super::Lab;

/// A system under test, on all members of a lab.
pub trait Product {
    /// Its name, for people.
    fn name(&self) -> &'static str;

    /// Starts what does not run, on every member, and returns at once.
    fn start(&mut self, lab: &Lab);

    /// Whether every member takes part again, and the holder may be disturbed.
    ///
    /// # Errors
    /// What is missing, in words.
    fn settled(&mut self, lab: &Lab, holder: usize) -> Result<(), String>;

    /// Moves the address away from its holder, as an operator does who has time for it.
    fn hand_over(&mut self, lab: &Lab, holder: usize);
}
