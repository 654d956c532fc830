// Stands in for React, which a package of helpers imports for a function that no connector uses.
module.exports = {};
