"""CI's workflows and the matrix of their cells, both made from the manifest."""
