//! What a query says, once it is read.

use serde_json::Value;

/// `SELECT ... FROM ... WHERE ... GROUP BY ...`
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Query {
    pub(super) projection: Projection,
    /// `TOP`
    pub(super) top: Option<u64>,
    pub(super) from: Collection,
    pub(super) condition: Option<Expression>,
    pub(super) group_by: Vec<Path>,
}

/// What is looked through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Collection {
    Devices,
    Modules,
    Jobs,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Projection {
    /// `*`
    Everything,
    Columns(Vec<Column>),
}

/// One member of the rows that come out.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) source: Source,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Source {
    Attribute(Path),
    /// `COUNT()`
    Count,
    Aggregate(Aggregate, Path),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Aggregate {
    Average,
    Sum,
    Minimum,
    Maximum,
}

/// An attribute: `properties.reported.x`, without the name of the collection. It has one part at least.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Path(pub(super) Vec<String>);

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Expression {
    Constant(Value),
    /// `undefined`: what an attribute that is not there is.
    Undefined,
    Attribute(Path),
    Not(Box<Self>),
    /// `AND`: two or more.
    All(Vec<Self>),
    /// `OR`: two or more.
    Any(Vec<Self>),
    Compare(Comparison, Box<Self>, Box<Self>),
    /// `IN`; its opposite `NIN` is a `Not` around it.
    In(Box<Self>, Vec<Self>),
    Calculate(Operator, Box<Self>, Box<Self>),
    Call(Function, Vec<Self>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operator {
    Plus,
    Minus,
    Times,
    By,
    Modulo,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Function {
    IsDefined,
    IsNull,
    IsBool,
    IsNumber,
    IsString,
    IsObject,
    StartsWith,
    EndsWith,
    Contains,
}

impl Collection {
    /// What comes before an attribute if the collection is named: `devices.jobs.status`.
    pub(super) const fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Devices => &["devices"],
            Self::Modules => &["devices", "modules"],
            Self::Jobs => &["devices", "jobs"],
        }
    }
}

impl Aggregate {
    pub(super) fn named(name: &str) -> Option<Self> {
        let all = [
            ("AVG", Self::Average),
            ("SUM", Self::Sum),
            ("MIN", Self::Minimum),
            ("MAX", Self::Maximum),
        ];
        let found = all.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, aggregate)| aggregate)
    }
}

impl Function {
    /// Both spellings are in Microsoft's documentation, `STARTSWITH` and `STARTS_WITH`.
    pub(super) fn named(name: &str) -> Option<Self> {
        let all = [
            ("IS_DEFINED", Self::IsDefined),
            ("IS_NULL", Self::IsNull),
            ("IS_BOOL", Self::IsBool),
            ("IS_NUMBER", Self::IsNumber),
            ("IS_STRING", Self::IsString),
            ("IS_OBJECT", Self::IsObject),
            ("STARTSWITH", Self::StartsWith),
            ("STARTS_WITH", Self::StartsWith),
            ("ENDSWITH", Self::EndsWith),
            ("ENDS_WITH", Self::EndsWith),
            ("CONTAINS", Self::Contains),
        ];
        let found = all.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, function)| function)
    }

    pub(super) const fn arguments(self) -> usize {
        match self {
            Self::IsDefined
            | Self::IsNull
            | Self::IsBool
            | Self::IsNumber
            | Self::IsString
            | Self::IsObject => 1,
            Self::StartsWith | Self::EndsWith | Self::Contains => 2,
        }
    }
}
