//! Collects mistakes, so that all of them are reported in one go.

use proc_macro2::TokenStream;
use quote::ToTokens;

#[derive(Default)]
pub struct Mistakes(Option<syn::Error>);

impl Mistakes {
    /// Underlines `place` with `text`.
    pub fn at(&mut self, place: impl ToTokens, text: impl std::fmt::Display) {
        self.add(syn::Error::new_spanned(place, text));
    }

    pub fn add(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn into_tokens(self) -> TokenStream {
        self.0.map(|error| error.to_compile_error()).unwrap_or_default()
    }
}

impl Mistakes {
    /// Takes over another collection.
    pub fn absorb(&mut self, other: Self) {
        if let Some(error) = other.0 {
            self.add(error);
        }
    }
}
