//! Whose traffic is this: classes and the flow table.
