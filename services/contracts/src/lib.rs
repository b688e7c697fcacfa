//! The messages between the services of the delivery company. Only types: two services that share a contract
//! share no code.

use postrider::{Command, Event, Query};
use serde::{Deserialize, Serialize};

/// The number of an order. The sender chooses it, so placing an order twice is the same as placing it once.
pub type OrderNumber = u64;

/// An amount of money in cents.
pub type Cents = u64;

/// Asks the office to take an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
#[message(key = "orders.place")]
pub struct PlaceOrder {
    /// Its number.
    pub order: OrderNumber,
    /// Where the parcel goes.
    pub address: String,
    /// What it weighs.
    pub grams: u32,
}

/// The office has taken an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[message(key = "orders.placed")]
pub struct OrderPlaced {
    /// Its number.
    pub order: OrderNumber,
    /// Where the parcel goes.
    pub address: String,
    /// What it weighs.
    pub grams: u32,
    /// What it costs.
    pub price: Cents,
}

/// Asks for the invoice of an order. Asking again returns the same invoice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
#[message(key = "invoice.create", reply = InvoiceCreated)]
pub struct CreateInvoice {
    /// The order.
    pub order: OrderNumber,
    /// What it costs.
    pub amount: Cents,
}

/// An invoice was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[message(key = "invoice.created")]
pub struct InvoiceCreated {
    /// The invoice's number.
    pub invoice: String,
    /// The order.
    pub order: OrderNumber,
    /// The amount due.
    pub amount: Cents,
}

/// How many invoices were written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Query)]
#[message(key = "invoice.issued", reply = u64)]
pub struct IssuedInvoices;

/// An invoice was paid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[message(key = "payment.taken")]
pub struct PaymentTaken {
    /// The invoice.
    pub invoice: String,
    /// The order.
    pub order: OrderNumber,
    /// The amount paid.
    pub amount: Cents,
}

/// Asks for the money that was moved so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Query)]
#[message(key = "payment.balance", reply = Balance)]
pub struct MoneySoFar;

/// What the accounts have. Their sum is zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// The account of all customers, in cents: what they have paid, below zero.
    pub customers: i64,
    /// What is in the till, in cents.
    pub till: i64,
}

/// A parcel has left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[message(key = "shipping.dispatched")]
pub struct ParcelDispatched {
    /// The order.
    pub order: OrderNumber,
    /// The tracking number.
    pub parcel: String,
}

/// The customer was notified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[message(key = "notification.sent")]
pub struct CustomerNotified {
    /// The order.
    pub order: OrderNumber,
    /// The text.
    pub text: String,
}
