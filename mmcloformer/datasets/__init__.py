"""The generated demo data set "shapes", and checks that data are where a config says."""
