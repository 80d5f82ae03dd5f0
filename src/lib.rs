//! netlaunch
#[doc(hidden)]
pub mod cli;
pub mod facts;
pub mod launch;
pub mod plan;
pub mod probe;
pub mod process;
pub mod types;
