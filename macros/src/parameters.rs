//! Parameters that can only be parts of a message: they cannot be extracted from the context.

use syn::{FnArg, Ident, Pat, Type};

use crate::mistakes::Mistakes;
use crate::tokens::{is_named, ungrouped};

/// Types of the language and its library, for which no crate can implement `FromContext`.
const PLAIN: [&str; 25] = [
    "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16", "u32", "u64", "u128",
    "usize", "str", "String", "Vec", "Option", "Result", "HashMap", "BTreeMap", "HashSet", "BTreeSet",
];

fn is_plain(ty: &Type) -> bool {
    match ungrouped(ty) {
        Type::Reference(reference) => is_plain(&reference.elem),
        Type::Tuple(_) | Type::Array(_) | Type::Slice(_) => true,
        other => PLAIN.iter().any(|name| is_named(other, name)),
    }
}

/// Refuses a message in several parameters, once for all of them, and says what to write. `inputs` are those after `self`.
pub fn check_parts<'a>(method: &Ident, inputs: impl Iterator<Item = &'a FnArg>, mistakes: &mut Mistakes) -> bool {
    let typed: Vec<_> =
        inputs.filter_map(|input| if let FnArg::Typed(typed) = input { Some(typed) } else { None }).collect();
    let Some((message, rest)) = typed.split_first() else { return false };
    let parts: Vec<_> = rest.iter().filter(|part| is_plain(&part.ty)).collect();
    let Some(first) = parts.first() else { return false };
    let fields =
        std::iter::once(message).chain(parts.iter().copied()).map(|part| match (&*part.pat, owned(&part.ty)) {
            (Pat::Ident(name), Some(ty)) => Some(format!("{}: {ty}", name.ident)),
            _ => None,
        });
    let fields = fields.collect::<Option<Vec<String>>>().map_or_else(|| "…".to_owned(), |fields| fields.join(", "));
    let name = camel_case(&method.to_string());
    mistakes.at(
        &first.ty,
        format!(
            "a message is one parameter: put its parts into one struct, `#[derive(serde::Serialize, serde::Deserialize)] struct {name} {{ {fields} }}`, and take `message: {name}`"
        ),
    );
    true
}

/// The type as a field would have it; `None` for types that are too long to show, or that borrow.
fn owned(ty: &Type) -> Option<String> {
    let text = match ungrouped(ty) {
        Type::Reference(reference) if is_named(&reference.elem, "str") => "String".to_owned(),
        Type::Reference(_) => return None,
        other => quote::quote!(#other).to_string().replace(" < ", "<").replace(" >", ">").replace(" ,", ","),
    };
    (text.len() <= 40).then_some(text)
}

/// `lend_book` as `LendBook`.
fn camel_case(name: &str) -> String {
    let words = name.trim_start_matches("r#").split('_');
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default()
    };
    words.map(capital).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(method: &str) -> Option<String> {
        let method: syn::ImplItemFn = syn::parse_str(method).unwrap();
        let mut mistakes = Mistakes::default();
        check_parts(&method.sig.ident, method.sig.inputs.iter().skip(1), &mut mistakes);
        (!mistakes.is_empty()).then(|| mistakes.into_tokens().to_string())
    }

    #[test]
    fn a_struct_for_the_parts_of_a_message_is_written_out() {
        let text =
            told("async fn lend_book(&self, book: u64, reader: &str, notes: Vec<String>, cx: &Context) {}").unwrap();
        assert!(text.contains("struct LendBook { book: u64, reader: String, notes: Vec<String> }"), "{text}");
        assert!(told("async fn lend(&self, _: u64, days: u8) {}").unwrap().contains("struct Lend { … }"));
    }

    #[test]
    fn what_may_be_made_from_the_context_is_left_to_the_compiler() {
        assert_eq!(told("async fn lend(&self, lend: Lend, tenant: Tenant, cx: &Context) {}"), None);
        assert_eq!(told("async fn lend(&self, book: u64) {}"), None);
        assert_eq!(told("async fn lend(&self) {}"), None);
    }
}
