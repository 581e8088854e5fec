//! What is in the repository: documents and what they say, what is made by programs, how sources use each other, scripts.

mod docs;
mod layout;
mod package;
mod reference;
mod scripts;
