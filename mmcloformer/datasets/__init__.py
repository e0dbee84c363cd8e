"""The generated demo data set "shapes"."""
