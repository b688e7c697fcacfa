//! `#[postrider::test]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ItemFn;

pub fn expand(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let mut function: ItemFn = match syn::parse2(item) {
        Ok(function) => function,
        Err(error) => return error.to_compile_error(),
    };
    if !attribute.is_empty() {
        return syn::Error::new_spanned(attribute, "`#[postrider::test]` takes nothing").to_compile_error();
    }
    if function.sig.asyncness.take().is_none() {
        return syn::Error::new_spanned(function.sig.fn_token, "`#[postrider::test]` goes on an `async fn`")
            .to_compile_error();
    }
    let (attributes, visibility, signature, body) = (&function.attrs, &function.vis, &function.sig, &function.block);
    quote! {
        #[::core::prelude::v1::test]
        #(#attributes)*
        #visibility #signature {
            ::postrider::testing::run(async move #body)
        }
    }
}
